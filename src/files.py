"""A path that a user wrote, as a place: plain Python, for every floor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def given(path: str | Path) -> Path:
    """`~` is the home folder, `~name` that of a user of this system; of no one, it is a name like any other."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises RuntimeError for ~nobody


# ---- JSON that every reader reads: the standard has no word for infinity, nor for what is no number.


def dumps(value: Any, indent: int | None = None) -> str:
    """Return plain data as JSON, with null for a number that is not finite (a perplexity of e^1000, say)."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
