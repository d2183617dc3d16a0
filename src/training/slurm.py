"""Under SLURM: which job this is, and which run it was on when the queue took it back."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


def job() -> str | None:
    """Return the job's number as `scontrol` takes it, `<array>_<task>` for one of an array; None outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def run_before(runs: Path, words: Sequence[str]) -> Path | None:
    """Return the run that this command had begun before its job was put back into the queue, or None.

    Args:
        runs: where runs of this name lie.
        words: the command line, for a job may have several commands.
    """
    if job() is None or int(os.environ.get("SLURM_RESTART_COUNT") or 0) == 0:
        return None
    for path in sorted(runs.glob("*/run.json"), reverse=True):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        mine = record.get("slurm_job") == job() and record.get("overrides") == list(words)
        if mine and record["status"] != "failed":
            return path.parent
    return None
