"""Runs -> one table: mean and spread over seeds, against baselines, with what failed. Reads files only.

    python -m src.report runs/sweeps/depth --compare model --html depth.html

Neither torch nor Hydra is imported: the report can be made wherever the folders have been copied to.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from src.reports import markdown, page, sheet, text
from src.reports.compare import compare, resolve_key
from src.reports.metric import SPLITS, resolve
from src.reports.mistake import UserError, suggestion
from src.reports.runs import Run, find_runs
from src.reports.table import build

Result = TypeVar("Result")
OPTIONS = ("--metric", "--split", "--at", "--compare", "--ignore", "--csv", "--markdown", "--html", "--help")


class Parser(argparse.ArgumentParser):
    """argparse, answering a mistake in one line that ends with the remedy."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (python -m src.report --help)")


def parser() -> Parser:
    """The options; their help is their documentation."""
    made = Parser(
        prog="python -m src.report",
        description="One table of all runs below PATH: grouped by what differs, seeds folded, best first.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("paths", nargs="*", metavar="PATH", help="a run's folder, or a folder with runs below it")
    add("--metric", metavar="NAME", help="what to compare, default val/cross_entropy; also seconds, parameters")
    add("--split", choices=SPLITS, help="compare by evaluation_<split>.json, as python -m src.evaluate writes it")
    add("--at", choices=("final", "best"), help="the value at the end of training (default) or at the best checkpoint")
    add("--compare", metavar="KEY", help="pair runs by seed over the values of a setting, such as model")
    add("--ignore", metavar="KEY", action="append", default=[], help="a setting that makes no row; repeatable")
    add("--csv", metavar="FILE", help="write the table as CSV (- for standard output)")
    add("--markdown", metavar="FILE", help="write the report as Markdown (- for standard output)")
    add("--html", metavar="FILE", help="write a page with curves that opens from disk (- for standard output)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the report; the exit code: 0, or 2 after saying on stderr what was wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        printed = report(given)
    except UserError as mistake:
        print(*mistake.lines, sep="\n", file=sys.stderr)
        return 2
    return say(printed)


def report(given: Sequence[str]) -> str:
    """Write the files that were asked for and return what standard output shall say; UserError on errors."""
    options = understand(given)
    runs = find_runs(options.paths)
    mistakes: list[str] = []
    metric = _collect(mistakes, lambda: resolve(options.metric, options.split, options.at, runs))
    key = _collect(mistakes, lambda: resolve_key(options.compare, runs)) if options.compare else None
    if mistakes or metric is None:
        raise UserError(*mistakes)
    table = build(runs, metric, options.ignore, kept=key)
    comparisons = compare(table, key) if key else None
    command = shlex.join(["python", "-m", "src.report", *given])
    made: dict[str, Callable[[], str]] = {
        "csv": lambda: sheet.render(table),
        "markdown": lambda: markdown.render(table, comparisons),
        "html": lambda: page.render(table, comparisons, command),
    }
    printed = None
    written = []
    for kind, render in made.items():
        target = getattr(options, kind)
        if target == "-":
            printed = render()
        elif target:
            _write(Path(target), render())
            written.append(f"{kind}: {target}\n")
    if printed is not None:
        return printed
    blocks = [text.render(table, comparisons), _evaluations(runs, options.split), "".join(written)]
    return "\n".join(block for block in blocks if block)


def understand(given: Sequence[str]) -> argparse.Namespace:
    """The options; all that can be known to be wrong before any run is read, at once."""
    made = parser()
    options, unknown = made.parse_known_intermixed_args(given)  # options may stand between paths
    # What follows an unknown option is unknown too, and no mistake of its own.
    words = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    mistakes = [f"there is no option {word}{suggestion(word, OPTIONS)}" for word in words]
    if not options.paths:
        mistakes.append("no path given; for example: python -m src.report runs (--help tells the options)")
    targets = {kind: getattr(options, kind) for kind in ("csv", "markdown", "html")}
    if list(targets.values()).count("-") > 1:
        mistakes.append("only one of --csv, --markdown and --html can go to standard output (-)")
    if options.compare and targets["csv"] == "-":
        mistakes.append("--compare has no place in a CSV: --csv FILE prints it beside the file, or use --markdown -")
    for kind, target in targets.items():
        if target and target != "-":
            folder = Path(target).parent
            if not folder.is_dir():
                mistakes.append(f"--{kind} {target}: there is no folder {folder}")
            elif Path(target).is_dir():
                mistakes.append(f"--{kind} {target} is a folder; name a file in it")
    if mistakes:
        raise UserError(*mistakes)
    return options


def _collect(mistakes: list[str], attempt: Callable[[], Result]) -> Result | None:
    try:
        return attempt()
    except UserError as mistake:
        mistakes += mistake.lines
        return None


def _evaluations(runs: Sequence[Run], split: str | None) -> str:
    """A hint at evaluations that this table does not show."""
    counts = {name: sum(name in run.evaluations for run in runs) for name in SPLITS if name != split}
    found = [f"--split {name} compares the {number} evaluated on {name}" for name, number in counts.items() if number]
    return f"{'; '.join(found)}\n" if found else ""


def _write(target: Path, content: str) -> None:
    """Replace `target` in one move, so that a reader never meets half of it."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(content, encoding="utf-8", newline="")
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{target} cannot be written: {error.strerror}") from error


def say(printed: str) -> int:
    """Print; a reader that closed the pipe (`| head`) has seen enough."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")  # a terminal without Chinese still gets its table
    try:
        sys.stdout.write(printed)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
    return 0


if __name__ == "__main__":
    sys.exit(main())
