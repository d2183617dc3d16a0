"""Where a run's text and its first weights lie, in words that hold from any working directory."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from src.config.schema import Config, key_table, to_plain
from src.files import user_path

TEXTS = ("path", "val_path", "test_path", "root")  # of the data group


def with_absolute_paths(config: Config) -> Config:
    """Return a copy whose paths of texts and of `init_from` are absolute, seen from the working directory.

    A run that is stored so can be evaluated, resumed and repeated from anywhere, and never reads another file of the
    same name.
    """
    texts = {key: absolute(value) for key in TEXTS if (value := getattr(config.data, key))}
    source = absolute(config.init_from) if config.init_from else config.init_from
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **texts), init_from=source)


def absolute(path: str) -> str:
    """The path from the root on; a glob stays one, whatever characters the working directory has in its name."""
    place = str(user_path(path))
    if os.path.isabs(place):
        return place
    is_glob = glob.has_magic(place) and not os.path.exists(place)
    return str(Path(glob.escape(os.getcwd()) if is_glob else os.getcwd(), place))


# ---- The key of a sweep's run: a short hash of everything in its configuration that can change its result.


def what_matters(config: Config) -> dict[str, Any]:
    """Return the configuration without the keys that cannot change the result, as plain data."""
    return _relevant(json.loads(json.dumps(to_plain(with_absolute_paths(config)))), "")


def _relevant(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    table, kept = key_table(), {}
    for name, value in node.items():
        about = table.get(f"{prefix}{name}")
        if about is None:  # a group; one of which nothing counts is left out
            if below := _relevant(value, f"{prefix}{name}."):
                kept[name] = below
        elif about.affects_result and not (about.added_later and value is None):
            kept[name] = value
    return kept


def run_key(config: Config) -> str:
    """Return the first 12 hexadecimal digits of the sha256 of what matters."""
    text = json.dumps(what_matters(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_name(config: Config) -> str:
    """Return what a run is called: by the user, else by its experiment, else by its text and model."""
    return config.name or config.experiment or f"{config.data.name}_{config.model.name}"


def sweep_folder(config: Config) -> Path:
    """Return where a sweep's run with this configuration lies, now and at every start of the sweep to come."""
    return Path(config.runs) / "sweeps" / run_name(config) / run_key(config)
