"""A path that a user wrote, as a place: plain Python, for every floor."""

from __future__ import annotations

import os
from pathlib import Path


def given(path: str | Path) -> Path:
    """`~` is the home folder, `~name` that of a user of this system; of no one, it is a name like any other."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises RuntimeError for ~nobody
