"""None of several processes outlives the others: who is left alone leaves, before they have met as well as after."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from lightning.pytorch.strategies.launchers import subprocess_script

from src.training.ranks import under_torchrun

PARENT = "UNROLL_PARENT"  # the first process, for those that Lightning starts from it
EVERY = 0.5  # seconds between two looks
GRACE = 10  # seconds in which the first process may find out by itself, and end with more to tell


def leave_with_parent() -> None:
    """In a process that another has started, leave as soon as that one is gone: nobody else would end it."""
    parent = os.getppid() if under_torchrun() else int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="leave with parent").start()


def watch_children(give_up: Callable[[], None]) -> threading.Event:
    """Have the processes that Lightning will start from this one watched, in place of its own watcher.

    Lightning's kills this process without a word. Ours lets it end by itself; where it hangs (in the rendezvous it
    would wait for half an hour) it calls `give_up` and leaves with exit code 1.

    Returns:
        What to set when the run has ended, however it did.
    """
    os.environ[PARENT] = str(os.getpid())
    ended = threading.Event()

    def watch(children: list[subprocess.Popen[Any]]) -> None:
        while not ended.wait(EVERY):
            codes = [child.poll() for child in children]
            if any(codes):
                if not ended.wait(GRACE):
                    give_up()
                    os._exit(1)
                return

    def start(child_processes: list[subprocess.Popen[Any]]) -> None:
        threading.Thread(target=watch, args=(child_processes,), daemon=True, name="watch children").start()

    subprocess_script._launch_process_observer = start
    return ended
