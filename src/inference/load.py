"""`from src import load`: a checkpoint, checked, becomes a model again. Needs neither Hydra nor Lightning."""

from __future__ import annotations

import json
import logging
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from src.config.schema import MODEL_PRECISIONS, Config, from_plain
from src.data.vocabulary import Vocabulary
from src.errors import UserError
from src.files import user_path
from src.inference.options import locate
from src.inference.trained_model import TrainedModel
from src.models.language_model import build_model

FORMAT = 1
# What zipfile and torch.load raise for a file that is not a whole zip, or whose pickle is not plain data
NO_CHECKPOINT = (
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError, EOFError, OSError),
    *(ValueError, RuntimeError, LookupError, TypeError, AttributeError),
)
REMEDY = "name a run's folder, or a file of its checkpoints/"
PREFIX = "model."  # in a checkpoint: Lightning names a parameter from the module that trains it
log = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents; no pickle in it is ever executed.

    Raises:
        UserError: no such file, a damaged one, a file of another program, a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch.load accepts a file with a flipped byte
                raise UserError(f"{path} is damaged: the checksum of {damaged} in it is wrong")
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except UserError:
        raise
    except NO_CHECKPOINT as error:
        raise UserError(f"{path} is no checkpoint, only a part of one, or holds more than plain data") from error
    ours = checkpoint.get("unroll") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or "format" not in ours:
        raise UserError(f"{path} was not written by this program: it has no config and no vocabulary inside")
    if ours["format"] != FORMAT:
        raise UserError(f"{path} has format {ours['format']}; this version reads format {FORMAT}")
    return checkpoint


def newest_sound(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the newest checkpoint of a run that is whole: `last.ckpt`, or with a warning the one before it.

    Raises:
        UserError: there is none, or none is whole.
    """
    errors: list[str] = []
    for path in (folder / "last.ckpt", folder / "previous.ckpt"):
        if path.exists():
            try:
                return path, read_checkpoint(path)
            except UserError as error:
                errors.extend(error.messages)
                log.warning("%s; trying the one before it", error)
    raise UserError(*errors or [f"{folder} holds no last.ckpt and no previous.ckpt"])


def load(path: str | Path, *, at: str | None = None, precision: str | None = None) -> TrainedModel:
    """Return the trained model at `path`, on the CPU and in evaluation mode.

    Args:
        path: a run's folder, a checkpoint, or a .safetensors file that `python -m src.export` wrote.
        at: `best` or `last` of a run's folder; None is the best where there is one, else the last.
        precision: `32-true` or `64-true`; None is float64 for a run trained in it, else float32.

    Raises:
        UserError: nothing there, no checkpoint, a damaged, foreign or newer one.
    """
    if precision not in (None, *MODEL_PRECISIONS):
        raise UserError(f"precision={precision}: expected one of {', '.join(MODEL_PRECISIONS)}")
    file = locate(path, at)
    exported = file.suffix == ".safetensors"
    file, content = (file, read_safetensors(file)) if exported else _read(file, is_run=file != user_path(path))
    try:
        prefix = "" if exported else PREFIX
        stored = {name: tensor for name, tensor in content["state_dict"].items() if name.startswith(prefix)}
        weights = {name.removeprefix(prefix): tensor for name, tensor in stored.items()}
        double = any(tensor.dtype is torch.float64 for tensor in weights.values())
        dtype = torch.float64 if (precision or MODEL_PRECISIONS[double]) == "64-true" else torch.float32
        config: Config = from_plain(content["unroll"]["config"])
        vocabulary = Vocabulary.from_plain(content["unroll"]["vocabulary"])
        with torch.random.fork_rng(devices=[]):  # building draws random weights; the caller's generator stays as it is
            model = build_model(config.model, len(vocabulary)).to(dtype)
        model.load_state_dict(weights)
        progress = {"step": content.get("global_step"), "epoch": content.get("epoch")}
        return TrainedModel(model.eval().requires_grad_(False), vocabulary, config, file, progress)
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise UserError(f"{file} does not fit its own configuration: {what}; {REMEDY}") from error


def _read(file: Path, is_run: bool) -> tuple[Path, dict[str, Any]]:
    """Return a checkpoint and its contents; if a run was named whose last checkpoint is damaged, the one before."""
    try:
        return newest_sound(file.parent) if is_run and file.name == "last.ckpt" else (file, read_checkpoint(file))
    except UserError as error:
        remedy = REMEDY
        if is_run and file.name == "best.ckpt" and (file.parent / "last.ckpt").is_file():
            remedy = "the last checkpoint may be whole: at=last"
        raise UserError(*error.messages[:-1], f"{error.messages[-1]}; {remedy}") from error


def read_safetensors(file: Path) -> dict[str, Any]:
    """Return an exported file, which has all but the weights as JSON in its header, in the form of a checkpoint."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(f"{file}: to read it, install the extra: pip install -e '.[export]'") from error
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a mapping
        identity = json.loads(header["unroll"])
        progress = identity["progress"]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is no safetensors file, or only a part of one ({error}); {REMEDY}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file} was not written by this program: no config in its header; {REMEDY}") from error
    return {"state_dict": weights, "unroll": identity, "global_step": progress["step"], "epoch": progress["epoch"]}
