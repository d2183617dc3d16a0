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
from src.training.locate import locate
from src.training.reading import newest_sound, read_checkpoint
from src.training.trained import TrainedModel
from src.training.wanted import PRECISIONS

DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.float64), strict=True))
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
    file = locate(path, at)
    if file.suffix == ".safetensors":
        weights, identity, progress = read_safetensors(file)
    else:
        # Of a run that was killed, the last sound checkpoint is wanted; of a file that was named, that file
        in_run = file.name == "last.ckpt" and Path(path).is_dir()
        file, checkpoint = newest_sound(file.parent) if in_run else (file, read_checkpoint(file))
        weights = {
            name.removeprefix(PREFIX): tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.startswith(PREFIX)
        }
        identity, progress = checkpoint["unroll"], checkpoint
    vocabulary = Vocabulary.from_plain(identity["vocabulary"])
    config = identity["config"]
    with torch.random.fork_rng(devices=[]):  # a model is born with random weights; the caller's generator stays
        try:
            model = build_model(config["model"], len(vocabulary))
            model.to(_dtype(weights, precision)).load_state_dict(weights)
        except (ValueError, RuntimeError) as error:
            raise Mistake(f"{file} does not fit its own configuration: {str(error).splitlines()[0]}") from error
    model.eval().requires_grad_(False)
    steps, epoch = progress.get("global_step"), progress.get("epoch")
    return TrainedModel(model, vocabulary, config, file, {"step": steps, "epoch": epoch})


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return weights, identity and progress from an exported file, whose header holds the latter two as JSON."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise Mistake(f"{file}: to read it, install the extra: pip install -e '.[export]'") from error
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise Mistake(f"{file} is no safetensors file, or only a part of one ({error})") from error
    if "unroll" not in header:
        raise Mistake(f"{file} was not written by this program: its header has no config and no vocabulary")
    identity = json.loads(header["unroll"])
    return weights, identity, identity["progress"]


def _dtype(weights: dict[str, Tensor], precision: str | None) -> torch.dtype:
    if precision is not None:
        if precision not in PRECISIONS:
            raise Mistake(f"precision={precision}: expected one of {', '.join(PRECISIONS)}")
        return DTYPES[precision]
    double = any(tensor.dtype is torch.float64 for tensor in weights.values())
    return torch.float64 if double else torch.float32
