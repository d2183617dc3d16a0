"""The key of a sweep's run: a short hash of everything in its configuration that can change its result."""

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

TEXTS = ("path", "val_path", "test_path", "root")  # paths in the data group


def with_absolute_paths(config: Config) -> Config:
    """Return a copy whose paths of texts and of `init_from` are absolute, seen from the working directory.

    A stored run can then be evaluated, resumed and repeated from anywhere, and never reads another file of that name.
    """
    data = dataclasses.replace(config.data)
    for key in TEXTS:
        if path := getattr(data, key):
            setattr(data, key, absolute(path))
    return dataclasses.replace(config, data=data, init_from=config.init_from and absolute(config.init_from))


def absolute(path: str) -> str:
    """Return an absolute path; a glob stays one, whatever characters the working directory has in its name."""
    given = str(user_path(path))
    if os.path.isabs(given):
        return given
    is_glob = glob.has_magic(given) and not os.path.exists(given)
    return str(Path(glob.escape(os.getcwd()) if is_glob else os.getcwd(), given))


def what_matters(config: Config) -> dict[str, Any]:
    """Return the configuration without the keys that cannot change the result, as plain data."""
    return _relevant(json.loads(json.dumps(to_plain(with_absolute_paths(config)))), "")


def _relevant(node: dict[str, Any], prefix: str) -> dict[str, Any]:
    table, kept = key_table(), {}
    for name, value in node.items():
        about = table.get(f"{prefix}{name}")
        if about is None:  # a group; one in which nothing counts is left out
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
    """Return the name of a run: the user's, else its experiment, else its text and model."""
    return config.name or config.experiment or f"{config.data.name}_{config.model.name}"


def sweep_folder(config: Config) -> Path:
    """Return the folder of a sweep's run with this configuration, the same at every start of the sweep."""
    return Path(config.runs) / "sweeps" / run_name(config) / run_key(config)
