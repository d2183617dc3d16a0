"""The key of a sweep's run: a short hash of everything in its configuration that can change its result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from src.config.schema import Config, key_table, to_plain


def what_matters(config: Config) -> dict[str, Any]:
    """Return the configuration without the keys that cannot change the result, as plain data."""
    plain = json.loads(json.dumps(to_plain(config.with_absolute_paths())))
    plain["data"]["seq_len"], plain["data"]["batch_size"] = config.data.window
    return _relevant(plain, "")


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


def sweep_folder(config: Config) -> Path:
    """Return the folder of a sweep's run with this configuration, the same at every start of the sweep."""
    return Path(config.runs) / "sweeps" / config.run_name / run_key(config)
