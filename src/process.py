"""The process around a command: fast imports, threads, standard input and output, and where the lines of a run go."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import logging
import os
import platform
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

from src.errors import RunFailure, UserError
from src.files import NO_FOLDER, disk_full, to_json, write_result

# Up to this hidden size one thread. Alone on two cores a step of two threads is 0.95 to 1.1 times as fast up to 96
# units and 1.25 to 1.55 at 128, but two such runs side by side slow one another tenfold, and small runs are many.
SMALL = 128
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
UNUSED = ("matplotlib", "scipy")
# SIGHUP: the terminal was closed; nohup has it ignored. Windows, where only `exit_with` runs, has none
HANGUP = getattr(signal, "SIGHUP", None)
NOHUP = HANGUP is None or signal.getsignal(HANGUP) == signal.SIG_IGN
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *(() if NOHUP else (HANGUP,)))
TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # the user's choice; Hydra gets it always (compose)
RECEIVED: list[int] = []  # the signals that asked this process to stop, in a run or between the runs of a sweep


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Inside, import torch and Lightning; exclude their objects from garbage collection (saves 1 s)."""
    if "lightning.pytorch" in sys.modules:  # a further job in this process: freezing would keep the garbage of the last
        yield
        return
    gc.disable()
    imports: Any = importlib.import_module("lightning_utilities.core.imports")

    # Written for lightning_utilities 0.15: torchmetrics must not find packages that it would import at every start
    # and that no metric of ours needs: matplotlib takes 0.4 s, scipy.signal 1.2 s
    cache, found, available = imports.RequirementCache, imports.RequirementCache.__bool__, imports.package_available
    cache.__bool__ = lambda self: not self.requirement.startswith(UNUSED) and found(self)
    imports.package_available = lambda name: name not in UNUSED and available(name)
    try:
        yield
    finally:
        cache.__bool__, imports.package_available = found, available
        gc.enable()
        if gc.get_threshold()[0] == 100_000:  # a command, as src/__init__.py has left it
            gc.set_threshold(700)
        gc.freeze()
        atexit.register(gc.freeze)


@contextlib.contextmanager
def signal_handlers(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    """Inside, use these handlers; at the end, restore the old ones: Lightning would leave Ctrl-C ignored."""
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGUSR1)}
    try:
        set_handlers(handlers)
        yield
    finally:
        set_handlers(before)


def set_handlers(handlers: Mapping[signal.Signals, Any]) -> None:
    """Set signal handlers; another thread than the main one may not, and leaves them."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def exit_when(gone: Callable[[], bool], grace: float = 0.0) -> None:
    """In a thread, wait until the supervising process is `gone`; save for `grace` seconds, and exit."""

    def watch() -> None:
        while not gone():
            time.sleep(0.5)
        if grace:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="exit when it is gone").start()


def threads_for(threads: str, hidden_size: int, share: int = 1) -> int:
    """Return how many threads this process uses; `auto` divides the cores by `share` processes and the sweep's runs."""
    if threads != "auto":
        return int(threads)
    share *= int(os.environ.get("UNROLL_SIDE_BY_SIDE", "1"))  # set by a sweep: its runs on this machine at a time
    return 1 if hidden_size <= SMALL else max(1, available_cores() // share)


def available_cores() -> int:
    """Return how many cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", a container without a limit
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, -(-int(quota) // int(period)))
    return cores


def use_threads(count: int) -> None:
    """Let torch and numpy use `count` threads: numpy's products, used in sampling, ignore torch's."""
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")  # for the rest of the process


class ReaderHasLeft(BrokenPipeError):
    """The reader of standard output has closed the pipe, as `| head` does: the end of a command, and no failure."""


def exit_with(run: Callable[[], None]) -> NoReturn:
    """Run an entry and exit with its code: 0, 2 with the user's errors on stderr, 1 for a failure, 130 for Ctrl-C."""
    if platform.system() == "Windows":  # signals and process groups differ there
        sys.exit("Windows is not supported: run Unroll in the Windows Subsystem for Linux (WSL)")
    # None where the shell has closed it (`>&-`)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character still gets the text
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if logging.lastResort:  # the handler of commands that keep no log
        logging.lastResort.setFormatter(OnStandardError())
    try:
        run()
        sys.stdout.flush()  # so that a full disk is reported here, and not by Python at its exit
    except UserError as error:
        if TRACEBACKS:
            raise
        if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":
            complain(*error.messages)
        else:
            time.sleep(5)  # torchrun ends all processes when one has failed; the first one reports the error
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except ReaderHasLeft:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
        sys.exit(0)
    except (RunFailure, OSError) as error:  # OSError: a full or read-only disk, a file that vanished
        try:
            sys.stdout.flush()
        except OSError:  # it was standard output that failed; Python would report it once more at its exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # `--help | head`: the reader has closed the pipe
                sys.exit(0)
        if TRACEBACKS:
            raise
        complain(error if isinstance(error, RunFailure) else f"{type(error).__name__}: {error}")
        sys.exit(1)
    sys.exit(0)


def say(text: str, stream: TextIO | None = None) -> None:
    """Write a text as `as_shown` returns it, to standard output or `stream`: all that commands print goes this way."""
    stream = sys.stdout if stream is None else stream
    try:
        print(as_shown(text, stream), end="", file=stream, flush=True)
    except BrokenPipeError as error:
        raise ReaderHasLeft(*error.args) if stream is sys.stdout else error from None


def as_shown(text: str, stream: TextIO | None) -> str:
    """Return a text for a stream: on a terminal control characters are escapes, which must not move its cursor."""
    if not (stream and stream.isatty()):  # None where the shell has closed it
        return text
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def complain(*messages: object) -> None:
    """Write lines to standard error."""
    say("".join(f"{message}\n" for message in messages), sys.stderr)


class OnStandardError(logging.Formatter):
    """Makes the lines of `logging.lastResort`, which a command that keeps no log writes to standard error."""

    def format(self, record: logging.LogRecord) -> str:
        return as_shown(super().format(record), sys.stderr)


def in_json(content: Any, indent: int | None = None) -> str:
    """Return plain data as a line of JSON; in ASCII if standard output has no Unicode."""
    has_all = "utf" in (getattr(sys.stdout, "encoding", None) or "utf").lower()
    return to_json(content, indent, ascii=not has_all) + "\n"


def bytes_of(value: str, key: str) -> bytes:
    """Return the bytes of a value of the command line, of `-` those of standard input; UserError if that is empty."""
    content = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    if value == "-" and not content:
        raise UserError(f"{key}=- reads standard input, and it was empty")
    return content


def write_file(path: str | None, text: str, key: str = "output") -> None:
    """Write a file that the user named with `key`, and say so; without one print. UserError if it cannot be written."""
    if path is None:
        return say(text)
    try:
        write_result(path, text)
    except OSError as error:
        raise UserError(f"{key}={path} cannot be written: {error.strerror}") from error
    return say(f"written: {path}\n")


# Beginnings of Lightning's lines that a user can do nothing about, or that our own lines say.
DROPPED = (
    "Tip", "GPU available", "TPU available", "IPU available", "HPU available", "You are using the plain", "💡",
    "`Trainer.fit` stopped", "`Trainer(", "Initializing distributed", "-----", "distributed_backend",
    "All distributed processes", "Restoring states from", "Restored all states", "Detected ", "Starting with v2",
    "SLURM auto-requeueing", "You are using a CUDA device", "LOCAL_RANK: ", "Using bfloat16", "Using 16bit",
)  # fmt: skip
IGNORED_WARNINGS = (
    ".*(treespec|LeafSpec|isinstance\\(treespec).*",
    ".*does not have many workers.*",
    ".*GPU available but not used.*",
    ".*callbacks used to create the checkpoint need to be provided.*",  # the user has switched one off
)


def say_line(line: str) -> None:
    """Write a line to the present stdout in one piece; if stdout is closed or full, the work goes on without it."""
    try:
        say(line + "\n")
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        if not isinstance(error, BrokenPipeError):
            complain(f"standard output takes no more lines ({error.strerror}); the work goes on")


class Console(logging.Handler):
    """The terminal: whatever `sys.stdout` is at the moment of a line (a progress bar and tests replace it)."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")  # a progress bar is cleared for the line, and drawn again below it
        cleared = bars.tqdm.external_write_mode() if bars else contextlib.nullcontext()
        with contextlib.suppress(OSError, ValueError), cleared:
            if record.levelno < logging.WARNING:
                say_line(self.format(record))
            elif not hasattr(record, "only_in_the_file"):  # else the console shows it by other means
                complain(self.format(record))


class LogFile(logging.FileHandler):
    """train.log; on a full disk the run goes on, or ends, without it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do not print the traceback of each line that could not be written."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


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
    return hasattr(sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None, "kernel")
