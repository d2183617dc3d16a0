"""`from src import load`: a run or a checkpoint becomes a model again, without Hydra and without the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.data.vocabulary import Vocabulary
from src.mistakes import Mistake
from src.models.build import build_model
from src.paths import given
from src.training.locate import locate
from src.training.reading import newest_sound, read_checkpoint
from src.training.trained import TrainedModel
from src.training.wanted import PRECISIONS

DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.float64), strict=True))
WAY_OUT = "name a run's folder, or a file of its checkpoints/"
PREFIX = "model."  # Lightning names a parameter from the module that trains it


def load(path: str | Path, *, at: str | None = None, precision: str | None = None) -> TrainedModel:
    """Return the trained model that lies at `path`, on the CPU and in evaluation mode.

    Args:
        path: a run's folder, a checkpoint, or a .safetensors file that `python -m src.export` wrote.
        at: `best` or `last` of a run's folder; None is the best where there is one, else the last.
        precision: `32-true` or `64-true`; None is float64 for a run trained in it, else float32.

    Raises:
        Mistake: nothing there, no checkpoint, a torn, foreign or newer one; no pickle is ever executed.
    """
    if precision not in (None, *PRECISIONS):
        raise Mistake(f"precision={precision}: expected one of {', '.join(PRECISIONS)}")
    file = locate(path, at)
    is_export = file.suffix == ".safetensors"
    file, content = (file, read_safetensors(file)) if is_export else read_of_run(file, file == given(path))
    try:
        prefix = "" if is_export else PREFIX
        named = {name: tensor for name, tensor in content["state_dict"].items() if name.startswith(prefix)}
        weights = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
        config = content["unroll"]["config"]
        vocabulary = Vocabulary.from_plain(content["unroll"]["vocabulary"])
        with torch.random.fork_rng(devices=[]):  # a model is born with random weights; the caller's generator stays
            model = build_model(config["model"], len(vocabulary))
            model.to(_dtype(weights, precision)).load_state_dict(weights)
        progress = {"step": content.get("global_step"), "epoch": content.get("epoch")}
        trained = TrainedModel(model.eval().requires_grad_(False), vocabulary, config, file, progress)
        trained.options  # noqa: B018  # whoever uses it needs them too
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise Mistake(f"{file} does not fit its own configuration: {what}; {WAY_OUT}") from error
    return trained


def read_of_run(file: Path, named: bool) -> tuple[Path, dict[str, Any]]:
    """Return a checkpoint and its contents: the one that was named, or of a run that was killed the last sound one.

    Raises:
        Mistake: it cannot be used, and what can.
    """
    try:
        if file.name == "last.ckpt" and not named:
            return newest_sound(file.parent)
        return file, read_checkpoint(file)
    except Mistake as mistake:
        *first, last = mistake.messages
        try:
            sound, _ = newest_sound(file.parent) if file.name == "best.ckpt" and not named else (None, None)
        except Mistake:
            sound = None
        way_out = f"{sound} is whole: at=last" if sound else WAY_OUT
        raise Mistake(*first, f"{last}; {way_out}") from mistake


def read_safetensors(file: Path) -> dict[str, Any]:
    """Return an exported file, whose header holds all but the weights as JSON, as if it were a checkpoint."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise Mistake(f"{file}: to read it, install the extra: pip install -e '.[export]'") from error
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise Mistake(f"{file} is no safetensors file, or only a part of one ({error}); {WAY_OUT}") from error
    try:
        identity = json.loads(header["unroll"])
        progress = identity["progress"]
        return {"state_dict": weights, "unroll": identity, "global_step": progress["step"], "epoch": progress["epoch"]}
    except (ValueError, LookupError, TypeError) as error:
        what = "its header has no config and no vocabulary"
        raise Mistake(f"{file} was not written by this program: {what}; {WAY_OUT}") from error


def _dtype(weights: dict[str, Tensor], precision: str | None) -> torch.dtype:
    if precision is not None:
        return DTYPES[precision]
    double = any(tensor.dtype is torch.float64 for tensor in weights.values())
    return torch.float64 if double else torch.float32
