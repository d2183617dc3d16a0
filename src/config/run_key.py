"""The key of a sweep's run: a short hash of everything in its configuration that can change its result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.config.schema import MODEL_CLASSES, Config, key_table, to_plain

# Names in a folder's name: of some groups the option says enough
SHORT = {"model": "", "data": "", "optimizer": "", "experiment": "", "trainer.gradient_clip_val": "clip"}


def what_matters(config: Config) -> dict[str, Any]:
    """Return the configuration without the keys that cannot change the result, as plain data."""
    plain = json.loads(json.dumps(to_plain(config.with_absolute_paths())))
    plain["data"]["seq_len"], plain["data"]["batch_size"] = config.data.window
    chosen = set(config.chosen or ())
    later = {"data": ("batch_size", 32)} if config.budget == "auto" else {"trainer": ("max_steps", -1)}
    if config.budget == "auto" and config.data.batch_size == 32 and "data.batch_size" not in chosen:
        plain["data"]["batch_size"] = "32"  # typed; the number 32 is the key of what the budget chooses, 32 or 64
    if config.budget and config.model._target_ in MODEL_CLASSES:  # null as typed: the budget would choose a value
        typed = [key for key in ("dropout_mask", "interlayer_scale", "readout_bias") if f"model.{key}" not in chosen]
        plain["model"] |= {key: plain["model"][key] or "null" for key in typed}
    for group, (name, before) in later.items():  # in keys of runs from before a budget chose it
        plain[group][name] = before if f"{group}.{name}" in chosen else plain[group][name]
        chosen.discard(f"{group}.{name}")
    return _relevant(plain, "", chosen)


def _relevant(node: dict[str, Any], prefix: str, chosen: set[str]) -> dict[str, Any]:
    """Leave out of plain data what changes no result, and what `budget` chose: that follows from the budget."""
    table, kept = key_table(), {}
    for name, value in node.items():
        about = table.get(f"{prefix}{name}")
        if about is None:  # a group; one in which nothing counts is left out
            if below := _relevant(value, f"{prefix}{name}.", chosen):
                kept[name] = below
        elif about.affects_result and f"{prefix}{name}" not in chosen and not (about.added_later and value is None):
            kept[name] = value
    return kept


def run_key(config: Config) -> str:
    """Return the first 12 hexadecimal digits of the sha256 of what matters."""
    text = json.dumps(what_matters(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sweep_folder(config: Config, differs: Sequence[str] = ()) -> Path:
    """Return the folder of a sweep's run: the one that ends with its key, else a new one, `<readable>-<key>`.

    `differs` are those of its overrides that not all jobs of the sweep share. The key alone identifies a run.
    """
    parent, key = Path(config.runs) / "sweeps" / config.run_name, run_key(config)
    return folder_of_key(parent, key) or parent / "-".join(filter(None, [readable(differs), key]))


def folder_of_key(parent: Path, key: str) -> Path | None:
    """Return the folder of the run with this key, or None."""
    whole = (folder for folder in parent.glob(f"*{key}") if folder.name == key or folder.name.endswith(f"-{key}"))
    return min(whole, default=None)


def readable(overrides: Sequence[str]) -> str:
    """Return overrides as a part of a folder's name, `manual_init-orthogonal_clip-0.5_seed-0`: no blanks, no `=`."""
    pairs = [(key.lstrip("+"), value) for key, _, value in (one.partition("=") for one in overrides)]
    tails = [key.rpartition(".")[2] for key, _ in pairs]
    parts = []
    for (key, value), tail in zip(pairs, tails, strict=True):
        name = SHORT.get(key, tail if tails.count(tail) == 1 else key)
        value = value.strip("'\"[]").rpartition("/")[2]  # of a path the file's name
        parts.append(re.sub(r"[^\w.+-]+", "-", f"{name}-{value}" if name else value, flags=re.ASCII))
    return "_".join(parts)[:120].rstrip("-_.")
