"""Ctrl-C in a sweep: who has it, who does not, and what a run that raised leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from src.config.hydra_compat import Launcher
from src.sweeps.plan import Plan
from src.sweeps.sweep import Progress, _launch


def test_a_closed_terminal_stops_a_process_unless_nohup_started_it() -> None:
    asks = [sys.executable, "-c", "from src.process import STOP_SIGNALS; print(len(STOP_SIGNALS))"]
    for command, count in ((asks, "3"), (["nohup", *asks], "2")):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == count


def test_the_processes_of_submitit_never_see_ctrl_c(tmp_path: Path) -> None:
    asks = [sys.executable, "-c", "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"]
    seen: list[str] = []
    launch: Any = lambda *_: [seen.append(subprocess.check_output(asks, text=True))]  # noqa: E731
    for name in ("submitit_local", "joblib"):
        _launch(Plan([], []), Launcher(name, {"n_jobs": 1}, launch), SimpleNamespace(path=tmp_path), [], Progress([]))
    assert seen == ["True\n", "False\n"]
