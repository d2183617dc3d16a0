"""`init_from=RUN` on a command line: the words that give the new model the size of the old one, where none do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from src.config.checks import GATED
from src.config.literals import split_word
from src.training.locate import locate, run_of

NETWORK = ("num_layers", "hidden_size", "nonlinearity", "readout")


def with_sizes_of_source(words: Sequence[str]) -> list[str]:
    """Return the command line with `model=`, the sizes and the way of reading that come with the weights, if any do.

    A word that the user gave stays. Whether it fits the weights is found when they are read.

    Raises:
        Mistake: `init_from` names neither a run nor a checkpoint.
    """
    given = [found[1] for word in words if (found := split_word(word)) and found[0] == "init_from"]
    if not given:
        return list(words)
    config = _stored(locate(given[-1]))
    model, data = config["model"], config["data"]
    wanted = {"model": model["name"]}
    wanted |= {f"model.{key}": model[key] for key in NETWORK if model.get(key) is not None}
    if data.get("encoding") == "bytes":
        wanted["data.encoding"] = "bytes"
    if data.get("lowercase"):
        wanted["data.lowercase"] = "true"
    said = {key: value for key, _, value in (word.partition("=") for word in words)}
    if said.get("model") in GATED and said["model"] != model["name"]:
        return list(words)  # which cannot be, and is said when the weights are read
    return [*words, *(f"{key}={value}" for key, value in wanted.items() if key not in said)]


def _stored(checkpoint: Path) -> Mapping[str, Any]:
    """The configuration behind a checkpoint: the file beside it, which needs no torch; else the one inside it."""
    run = run_of(checkpoint)
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) if run else None
    except (OSError, yaml.YAMLError):
        config = None
    if isinstance(config, dict) and {"model", "data"} <= config.keys():
        return config
    from src.config.start import heavy_imports

    with heavy_imports():
        from src.training.loading import load
    return load(checkpoint).config
