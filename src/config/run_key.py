"""Where a run's text and its first weights lie, in words that hold from any working directory."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.files import given

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


# ---- The key of a sweep's run: a short hash of everything in its configuration that can change its result.

# What cannot change the result: where things lie, what is written down and shown, and words about the sweep as a whole.
# `data.path` names the text and so counts, from the root on; `data.root` only says where one of known checksum lies.
CANNOT_MATTER = (
    "name",
    "experiment",
    "runs",
    "sweep",
    "logger",
    "callbacks",
    "data.root",
    "checkpoint.enabled",
    "checkpoint.every_n_steps",
    "checkpoint.every_n_minutes",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.detect_anomaly",
    "trainer.profile",
)

# Words younger than some runs: null, and then as if they were not there, so that a run of before is still the same run.
CAME_LATER = ("model.interlayer_scale",)


def what_matters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without what cannot change the result."""
    kept: dict[str, Any] = json.loads(json.dumps(with_places(config)))
    for key in (*CANNOT_MATTER, *CAME_LATER):
        *parents, leaf = key.split(".")
        node = kept
        for parent in parents:
            node = node.get(parent, {})
        if key in CANNOT_MATTER or node.get(leaf) is None:
            node.pop(leaf, None)
    return kept


def run_key(config: Mapping[str, Any]) -> str:
    """Return the first 12 hexadecimal digits of the sha256 of what matters."""
    text = json.dumps(what_matters(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_name(config: Mapping[str, Any]) -> str:
    """Return what a run is called: by the user, else by its experiment, else by its text and model."""
    return config["name"] or config["experiment"] or f"{config['data']['name']}_{config['model']['name']}"


def sweep_folder(config: Mapping[str, Any]) -> Path:
    """Return where a sweep's run with this configuration lies, now and at every start of the sweep to come."""
    return Path(config["runs"]) / "sweeps" / run_name(config) / run_key(config)
