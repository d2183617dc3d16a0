"""Where lines go: plain on the console, with their time in the run's train.log, each once. No adverts."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from src.data.corpus import Corpus
from src.metrics import bits_per_character
from src.training.run_record import Record

ADVERTS = ("Tip", "GPU available", "TPU available", "IPU available", "HPU available", "You are using the plain", "💡")
# Lightning's own words for what our lines already say.
SAID_BETTER = (
    "`Trainer.fit` stopped",
    "`Trainer(",
    "Initializing distributed",
    "-----",
    "distributed_backend",
    "All distributed processes",
    "Restoring states from",
    "Restored all states",
    "Detected ",
    "Starting with v2",
    "SLURM auto-requeueing",
)


ONLY_IN_THE_FILE = {"only_in_the_file": True}  # `extra` of a line that the console shows by other means


class NoAdverts(logging.Filter):
    """Drop lines that a user can do nothing about."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep everything else."""
        text = record.getMessage()
        return bool(text.strip()) and not any(text.lstrip().startswith(start) for start in ADVERTS + SAID_BETTER)


class Console(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """The terminal: whatever `sys.stdout` is at the moment of a line (a progress bar and tests replace it)."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write to the present stdout; warnings to stderr."""
        if getattr(record, "only_in_the_file", False):
            return
        self.stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A console that takes no more lines is no reason to stop training, nor to say so at every line."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and self.stream is sys.stdout:
            _fall_silent(error)
        else:
            super().handleError(record)


def say(line: str) -> None:
    """Write a line to the present stdout in one piece: a line that another thread writes stands before or after it."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:
        _fall_silent(error)


def _fall_silent(error: OSError) -> None:
    """Write nothing to stdout for the rest of the process; a reader that has seen enough (`| head`) needs no reason."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if not isinstance(error, BrokenPipeError):
        print(f"standard output takes no more lines ({error.strerror}); the work goes on", file=sys.stderr)


@contextlib.contextmanager
def logging_to(folder: Path | None) -> Iterator[None]:
    """While it lasts, send all lines to the console and, where there is a folder, to its train.log."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    quiet = folder == Path(os.devnull)  # a process that owns no folder: process 0 says everything
    handlers: list[logging.Handler] = [logging.NullHandler() if quiet else Console()]
    if folder is not None and not quiet:
        file = logging.FileHandler(folder / "train.log", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    for handler in handlers:
        handler.addFilter(NoAdverts())
    root.handlers[:] = handlers
    root.setLevel(logging.INFO)
    for name in [
        name for name in logging.root.manager.loggerDict if name.startswith(("lightning", "pytorch_lightning"))
    ]:
        lightning = logging.getLogger(name)
        lightning.handlers.clear()
        lightning.propagate = True
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", message=".*(treespec|LeafSpec|isinstance\\(treespec).*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Early stopping or a callback that was switched off on the way: the user's own word
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint need to be provided.*")
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in handlers[1:]:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)


# ---- What a user reads: what runs and what is to beat at the start, where the results are at the end.

log = logging.getLogger(__name__)


def say_start(record: Record, corpus: Corpus) -> None:
    """Say in one line what runs, and in one what to beat."""
    known = record.entries
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in corpus.splits.items())
    log.info(
        "%s on %s (%d characters to tell apart; %s): %s parameters, seed %d, in %s",
        known["model"],
        known["data"],
        known["vocab_size"],
        sizes,
        f"{known['parameters']:,}",
        known["seed"],
        record.folder,
    )
    for note in corpus.notes:
        log.info("%s", note)
    floors = ", ".join(f"{name} {bits:.3f}" for name, bits in known["baselines"].items())
    partial = f" ({known['baselines_basis']})" if known.get("baselines_basis") else ""
    log.info("to beat, in bits a character: %s%s", floors, partial)


def say_end(record: Record) -> None:
    """Say what was reached and where it lies."""
    best = record.entries["metrics"]["best"]
    if best is not None and best["monitor"] == "val/cross_entropy":
        nats = best["value"]
        log.info("best val %.4f nats = %.4f bits a character, at step %d", nats, bits_per_character(nats), best["step"])
    log.info("done in %.1f s: %s", record.entries["seconds"], record.folder)
