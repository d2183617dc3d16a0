"""Where lines go: plain to the console, with their time to the run's train.log, each once."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from src import process
from src.files import disk_full
from src.process import complain
from src.training.run_record import NO_FOLDER

# Beginnings of Lightning's lines that a user can do nothing about, or that our own lines say.
DROPPED = (
    "Tip", "GPU available", "TPU available", "IPU available", "HPU available", "You are using the plain", "💡",
    "`Trainer.fit` stopped", "`Trainer(", "Initializing distributed", "-----", "distributed_backend",
    "All distributed processes", "Restoring states from", "Restored all states", "Detected ", "Starting with v2",
    "SLURM auto-requeueing",
)  # fmt: skip
IGNORED_WARNINGS = (
    ".*(treespec|LeafSpec|isinstance\\(treespec).*",
    ".*does not have many workers.*",
    ".*callbacks used to create the checkpoint need to be provided.*",  # the user has switched one off
)


class Console(logging.Handler):
    """The terminal: whatever `sys.stdout` is at the moment of a line (a progress bar and tests replace it)."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")  # a progress bar is cleared for the line, and drawn again below it
        cleared = bars.tqdm.external_write_mode() if bars else contextlib.nullcontext()
        with contextlib.suppress(OSError, ValueError), cleared:
            if record.levelno < logging.WARNING:
                say(self.format(record))
            elif not hasattr(record, "only_in_the_file"):  # else the console shows it by other means
                complain(self.format(record))


class LogFile(logging.FileHandler):
    """train.log; on a full disk the run goes on, or ends, without it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do not print the traceback of each line that could not be written."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def say(line: str) -> None:
    """Write a line to the present stdout in one piece; if stdout is closed or full, the run goes on without it."""
    try:
        process.say(line + "\n")
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        if not isinstance(error, BrokenPipeError):
            complain(f"standard output takes no more lines ({error.strerror}); the work goes on")


@contextlib.contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Inside, send all lines to the console and to train.log in a folder; to neither for NO_FOLDER."""
    root = logging.getLogger()
    before, level, hook_before = root.handlers[:], root.level, threading.excepthook
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if folder != NO_FOLDER:
        file = LogFile(folder / "train.log", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers = [Console(), file]
    for handler in handlers:
        handler.addFilter(lambda record: not record.getMessage().lstrip().startswith(DROPPED))
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("lightning", "pytorch_lightning")):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    # That of TensorBoard's thread is raised in the main thread, too
    threading.excepthook = lambda hook: None if disk_full(hook.exc_value, folder) else threading.__excepthook__(hook)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    try:
        yield
    finally:
        threading.excepthook = hook_before
        logging.captureWarnings(False)
        for handler in handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, where a line can be replaced as on a terminal."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")
