"""Runs -> one table: mean and spread over seeds, against baselines, with what failed. Reads files only.

    python -m src.report runs/sweeps/depth --compare model --html depth.html
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from src.errors import UserError
from src.files import user_path, write_atomic

SPLITS = ("train", "val", "test")
FORMATS = {
    "csv": "the table as CSV",
    "markdown": "the report as Markdown",
    "latex": "the tables as LaTeX (booktabs)",
    "html": "a page with curves that opens from disk",
}


class Parser(argparse.ArgumentParser):
    """argparse, with an error in one line that ends with the remedy."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (python -m src.report --help)")


def parser() -> Parser:
    """Return the parser; the options are documented by their help."""
    made = Parser(
        prog="python -m src.report",
        description="One table of all runs below PATH: grouped by what differs, averaged over seeds, best first.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("paths", nargs="+", metavar="PATH", help="a run's folder, or a folder with runs below it")
    add("--metric", metavar="NAME", help="what to compare, default val/cross_entropy; also seconds, parameters")
    add("--split", choices=SPLITS, help="compare by evaluation_<split>.json, as python -m src.evaluate writes it")
    add("--at", choices=("final", "best"), help="the value at the end of training (default) or at the best checkpoint")
    add("--compare", metavar="KEY", help="pair runs by seed over the values of a setting, such as model")
    add("--ignore", metavar="KEY", action="append", default=[], help="a setting that makes no row; repeatable")
    for kind, about in FORMATS.items():
        add(f"--{kind}", metavar="FILE", help=f"write {about} (- for standard output)")
    add("--figures", metavar="DIR", help="write curves by steps, characters, seconds and final values: png, svg, pdf")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the report; return the exit code: 0, or 2 after a user's error, which goes to stderr."""
    try:
        printed = report(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(*error.messages, sep="\n", file=sys.stderr)
        return 2
    # A terminal without Chinese still gets its table.
    getattr(sys.stdout, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        sys.stdout.write(printed)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
    return 0


def report(arguments: Sequence[str]) -> str:
    """Write the files that were asked for and return what goes to standard output.

    Raises:
        UserError: all errors that are known at once.
    """
    options = parser().parse_intermixed_args(arguments)  # options may come between paths
    targets = {kind: target for kind in FORMATS if (target := getattr(options, kind))}
    check(options, targets)
    from src.reports import compare, formatting, table
    from src.reports.runs import find_runs

    runs, errors = find_runs(options.paths), []

    def attempt(resolve: Callable[..., Any], *given: Any) -> Any:
        try:
            return resolve(*given)
        except UserError as error:
            errors.extend(error.messages)

    metric = attempt(table.resolve_metric, options.metric, options.split, options.at, runs)
    key = attempt(compare.resolve_key, options.compare, runs) if options.compare else None
    if errors:
        raise UserError(*errors)
    made = table.build(runs, metric, options.ignore, kept=key)
    content = formatting.sections(made, [compare.compare(one, key, metric) for one in made.tables] if key else [])
    command = shlex.join(["python", "-m", "src.report", *arguments])
    render: dict[str, Callable[[], str]] = {
        "csv": lambda: formatting.to_csv(made),
        "markdown": lambda: formatting.to_markdown(content),
        "latex": lambda: formatting.to_latex(content, command),
        "html": lambda: formatting.to_html(made, content, command),
    }
    printed = {kind: render[kind]() for kind, target in targets.items() if target == "-"}
    written = [f"{kind}: {target}\n" for kind, target in targets.items() if target != "-"]
    try:
        for kind in targets.keys() - printed.keys():
            write_atomic(user_path(targets[kind]), render[kind]())
        if options.figures:
            from src.reports.figures import write_figures

            written.append(f"figures: {write_figures(made, user_path(options.figures))} in {options.figures}\n")
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from error
    if printed:
        return "".join(printed.values())
    return "\n".join([formatting.to_text(content), *(["".join(written)] if written else [])])


def check(options: argparse.Namespace, targets: dict[str, str]) -> None:
    """Raise UserError with all that is wrong with the options and can be known before a run is read."""
    errors = []
    if [*targets.values()].count("-") > 1:
        errors.append(f"only one of {', '.join(f'--{kind}' for kind in FORMATS)} can go to standard output (-)")
    if options.compare and options.csv == "-":
        errors.append("--compare is not part of a CSV: --csv FILE prints it beside the file, or use --markdown -")
    for kind, target in {**targets, **({"figures": options.figures} if options.figures else {})}.items():
        path = user_path(target)
        if not path.parent.is_dir():
            errors.append(f"--{kind} {target}: there is no folder {path.parent}")
        elif path.exists() and path.is_dir() != (kind == "figures"):
            errors.append(f"--{kind} {target}: {'name a folder' if kind == 'figures' else 'that is a folder'}")
    if errors:
        raise UserError(*errors)


if __name__ == "__main__":
    sys.exit(main())
