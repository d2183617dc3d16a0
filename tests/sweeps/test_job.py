"""Ctrl-C in a sweep: who has it, who does not, and what a run that raised leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

from src.process import RECEIVED, signal_handlers
from src.sweeps.job import children_without_ctrl_c, stop_on_signal


def test_children_never_see_ctrl_c_and_the_sweep_still_does() -> None:
    seen, over = threading.Event(), threading.Event()
    watcher = threading.Thread(target=over.wait)
    watcher.start()  # as the progress line's thread: the system hands the signal to it
    asks = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    with stop_on_signal(seen.set):
        with children_without_ctrl_c():
            child = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
            os.kill(os.getpid(), signal.SIGINT)
            deadline = time.monotonic() + 10
            while not seen.is_set() and time.monotonic() < deadline:
                time.sleep(0.01)
        assert child.stdout.strip() == "True"
        assert seen.is_set()
        assert RECEIVED == [signal.SIGINT]
    over.set()
    watcher.join()


def test_a_closed_terminal_stops_a_process_unless_nohup_started_it() -> None:
    asks = [sys.executable, "-c", "from src.process import STOP_SIGNALS; print(len(STOP_SIGNALS))"]
    for command, count in ((asks, "3"), (["nohup", *asks], "2")):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == count


def test_the_handlers_that_a_run_has_left_are_taken_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with signal_handlers({}):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Lightning does after a KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is before
