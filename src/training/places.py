"""Where a run's text and its first weights lie, in words that hold from any working directory."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.paths import given

TEXTS = ("path", "val_path", "test_path", "root")  # of the data group


def with_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose paths of texts and of `init_from` are absolute, seen from where the user stands.

    A run that is stored so can be evaluated, resumed and repeated from anywhere, and never reads another file of the
    same name.
    """
    data = {key: absolute(value) if key in TEXTS and value else value for key, value in config["data"].items()}
    source = config.get("init_from")
    return {**config, "data": data, "init_from": absolute(source) if source else source}


def absolute(path: str) -> str:
    """The path from the root on; a glob stays one, whatever characters the working directory has in its name."""
    place = str(given(path))
    if os.path.isabs(place):
        return place
    is_glob = glob.has_magic(place) and not os.path.exists(place)
    return str(Path(glob.escape(os.getcwd()) if is_glob else os.getcwd(), place))
