"""Runs -> one table: mean and spread over seeds, against baselines, with what failed. Reads files only.

python -m src.report runs/sweeps/depth --compare model --html depth.html
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from src.errors import UserError
from src.files import user_path, write_result
from src.process import exit_with, say

FORMATS = {
    "csv": "the table as CSV",
    "markdown": "the report as Markdown",
    "latex": "the tables as LaTeX (booktabs)",
    "html": "a page with curves that opens from disk",
    "json": "the tables and comparisons as JSON",
}


class Parser(argparse.ArgumentParser):
    """argparse, with an error in one line that ends with the remedy."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (python -m src.report --help)")


def parser() -> Parser:
    """Return the parser; the options are documented by their help."""
    about = "One table of all runs below PATH: grouped by what differs, averaged over seeds, best first."
    made = Parser("python -m src.report", description=about, allow_abbrev=False)
    add = made.add_argument
    add("paths", nargs="*", metavar="PATH", help="a run's folder, or a folder with runs below it")
    add("--metric", metavar="NAME", help="what to compare, default val/cross_entropy; also seconds, parameters")
    one = made.add_mutually_exclusive_group().add_argument
    one("--split", choices=("train", "val", "test"), help="compare by the evaluation_<split>.json of src.evaluate")
    one("--at", choices=("final", "best"), help="the value at the end of training (default) or at the best checkpoint")
    about = "pair runs by seed over the values of a setting, such as model; of two: both, and their interaction"
    add("--compare", nargs="+", metavar="KEY", default=[], help=about)
    add("--last", type=int, metavar="N", help="only the N runs that were started last")
    add("--ignore", metavar="KEY", action="append", default=[], help="a setting that makes no row; repeatable")
    for kind, about in FORMATS.items():
        add(
            f"--{kind}", metavar="FILE", nargs="?", const="-", help=f"write {about} (no FILE, or -: to standard output)"
        )
    add("--figures", metavar="DIR", help="write curves by steps, characters, seconds and final values: png, svg, pdf")
    return made


def main() -> None:
    """Run the command line."""
    say(report(sys.argv[1:]))


def report(arguments: Sequence[str]) -> str:
    """Write the requested files; return the text for standard output."""
    options = parser().parse_intermixed_args(arguments)  # options may come between paths
    while len(options.compare) > 1 and os.path.isdir(options.compare[-1]):  # `--compare model runs`
        options.paths.append(options.compare.pop())
    if not options.paths:
        raise UserError("the following arguments are required: PATH (python -m src.report --help)")
    if len(options.compare) > 2 or (options.last is not None and options.last < 1):
        raise UserError("--compare takes one or two settings, --last a number of at least 1")
    targets = {kind: target for kind in (*FORMATS, "figures") if (target := getattr(options, kind))}
    folders = {kind: user_path(target).parent for kind, target in targets.items()}
    if missing := [kind for kind, folder in folders.items() if not folder.is_dir()]:
        raise UserError(*(f"--{kind} {targets[kind]}: there is no folder {folders[kind]}" for kind in missing))
    from src.reports import compare, formatting, table
    from src.reports.runs import find_runs

    runs = find_runs(options.paths)
    if options.last:
        runs = sorted(runs, key=lambda run: str(run.record.get("started") or ""))[-options.last :]
    metric = table.resolve_metric(options.metric, options.split, options.at, runs)
    keys = list(dict.fromkeys(compare.resolve_key(key, runs) for key in options.compare))
    made = table.build(runs, metric, options.ignore, kept=keys)
    content = formatting.sections(made, keys)
    command = shlex.join(["python", "-m", "src.report", *arguments])
    files = {kind: getattr(formatting, f"to_{kind}")(made, content, command) for kind in FORMATS if kind in targets}
    printed = [text for kind, text in files.items() if targets[kind] == "-"]
    written = ""
    try:
        for kind in (kind for kind in files if targets[kind] != "-"):
            write_result(targets[kind], files[kind])
            written += f"{kind}: {targets[kind]}\n"
        if options.figures:
            from src.reports.figures import write_figures

            written += f"figures: {write_figures(made, user_path(options.figures))} in {options.figures}\n"
    except OSError as error:
        raise UserError(f"{error.filename2 or error.filename} cannot be written: {error.strerror}") from error
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf  # in a pipe a row is a line
    return "".join(printed) or "\n".join(filter(None, [formatting.to_text(content, width), written]))


if __name__ == "__main__":
    exit_with(main)
