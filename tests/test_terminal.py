"""What is printed to a terminal cannot steer it: control characters arrive as escapes. Files and pipes get them raw."""

import ast
import contextlib
import logging
import os
import sys
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from src.errors import RunFailure, UserError
from src.process import complain, exit_with, logging_to, say

ROOT = Path(__file__).resolve().parents[1]
WILD = "a\x1b]0;title\x07\x1b[2J\x9b1m\rb\tc 中\u00e9\n"
TAME = "a\\x1b]0;title\\x07\\x1b[2J\\x9b1m\\rb\tc 中\u00e9\n"


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, write: Callable[[], None]) -> str:
    """Return what a function writes to standard output and error where they are a terminal."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    with open(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        patched.setattr(sys, "stderr", stream)
        with contextlib.suppress(SystemExit):
            write()
        stream.write("END")
        stream.flush()
        written = b""
        while not written.endswith(b"END"):
            written += os.read(ours, 10_000)
    os.close(ours)
    return written.decode().removesuffix("END")


def ends_with(error: Exception) -> Callable[[Path], None]:
    return lambda _: exit_with(lambda: (_ for _ in ()).throw(error))


def a_warning_of_a_command_without_a_log(_: Path) -> None:
    handlers, logging.root.handlers = logging.root.handlers, []
    with contextlib.suppress(SystemExit):
        exit_with(lambda: logging.getLogger("x").warning(WILD.rstrip()))
    logging.root.handlers = handlers


def lines_of_a_run(folder: Path) -> None:
    with logging_to(folder):
        logging.getLogger("x").info(WILD.rstrip())
        logging.getLogger("x").warning(WILD.rstrip())
    assert (folder / "train.log").read_text(encoding="utf-8", errors="strict").count("\x1b[2J") == 2


@pytest.mark.parametrize(
    ("write", "times"),
    [(lambda _: say(WILD), 1), (lambda _: complain(WILD.rstrip()), 1), (ends_with(UserError(WILD.rstrip())), 1),
     (ends_with(RunFailure(WILD.rstrip())), 1), (a_warning_of_a_command_without_a_log, 1), (lines_of_a_run, 2)],
)  # fmt: skip
def test_control_characters_reach_a_terminal_as_escapes_and_a_pipe_as_they_are(monkeypatch, tmp_path, write, times):
    assert on_a_terminal(monkeypatch, lambda: write(tmp_path)) == TAME * times


def test_a_pipe_gets_the_text_as_it_is(capsys):
    say(WILD)
    assert capsys.readouterr().out == WILD


def test_only_one_function_prints():
    """Whatever else prints goes around the escapes; json.dumps beside files.to_json writes NaN, which is no JSON."""
    prints, dumps = [], []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            where = f"{file.relative_to(ROOT)}: {name}"
            prints += [where] if name in ("print", "sys.stdout.write", "sys.stderr.write") else []
            dumps += [where] if name in ("json.dump", "json.dumps") else []
    assert prints == ["src/process.py: print"]
    # What these make is hashed, compared or an override: it is in no file and not printed
    others = {"config/run_key", "config/compose", "data/corpus", "data/text_reader", "reports/runs"}
    others |= {"sweeps/search/space", "sweeps/search/study"}
    assert {one.removeprefix("src/").partition(".")[0] for one in dumps} <= {"files", *others}
