"""A checkpoint read and checked, without Lightning: whoever only uses a model need not wait for its import."""

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
from torch import Tensor

from src.config.schema import from_plain
from src.data.vocabulary import Vocabulary
from src.errors import UserError
from src.files import user_path
from src.inference.locate import locate
from src.inference.options import PRECISIONS
from src.inference.trained_model import TrainedModel
from src.models.language_model import build_model

FORMAT = 1
# What torch.load raises of bytes that are no checkpoint, or one whose pickle asks for more than plain data
FOREIGN = (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError)
# What zipfile raises of a file that is none, or whose directory was altered
NO_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
log = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents.

    Raises:
        UserError: no such file, a torn or altered one, a file of another program, a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()  # torch.load itself accepts a file with a flipped byte
            odd = next((member.filename for member in archive.infolist() if is_odd(member)), None)
    except NO_ZIP as error:
        raise UserError(f"{path} is no checkpoint, or only a part of one ({error})") from error
    if torn is not None:
        raise UserError(f"{path} is damaged: {torn} in it does not have the checksum it was written with")
    if odd is not None:
        raise UserError(f"{path} is damaged: {odd} in it is not described as it was written")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except FOREIGN as error:
        raise UserError(
            f"{path} holds more than plain data, or something else than a checkpoint; it was not loaded"
        ) from error
    ours = checkpoint.get("unroll") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or "format" not in ours:
        raise UserError(f"{path} was not written by this program: it has no config and no vocabulary inside")
    if ours["format"] != FORMAT:
        raise UserError(f"{path} has format {ours['format']}; this version reads format {FORMAT}")
    return checkpoint


def is_odd(member: zipfile.ZipInfo) -> bool:
    """Whether a member is not what torch.save writes, a plain file stored as it is: no checksum covers these words."""
    return bool(member.is_dir() or member.external_attr or member.compress_type != zipfile.ZIP_STORED)


def newest_sound(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the last checkpoint of a run that is whole: `last.ckpt`, or the one before it, which is said.

    Raises:
        UserError: there is none, or none is whole.
    """
    troubles: list[str] = []
    for name in ("last.ckpt", "previous.ckpt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            return path, read_checkpoint(path)
        except UserError as trouble:
            troubles.extend(trouble.messages)
            log.warning("%s; trying the one before it", trouble)
    raise UserError(*troubles) if troubles else UserError(f"{folder} holds no last.ckpt and no previous.ckpt")


# ---- `from src import load`: a run or a checkpoint becomes a model again, without Hydra and without the run's ...

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
        UserError: nothing there, no checkpoint, a torn, foreign or newer one; no pickle is ever executed.
    """
    if precision not in (None, *PRECISIONS):
        raise UserError(f"precision={precision}: expected one of {', '.join(PRECISIONS)}")
    file = locate(path, at)
    is_export = file.suffix == ".safetensors"
    file, content = (file, read_safetensors(file)) if is_export else read_of_run(file, file == user_path(path))
    try:
        prefix = "" if is_export else PREFIX
        named = {name: tensor for name, tensor in content["state_dict"].items() if name.startswith(prefix)}
        weights = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
        config = from_plain(content["unroll"]["config"])
        vocabulary = Vocabulary.from_plain(content["unroll"]["vocabulary"])
        with torch.random.fork_rng(devices=[]):  # a model is born with random weights; the caller's generator stays
            model = build_model(config.model, len(vocabulary))
            model.to(_dtype(weights, precision)).load_state_dict(weights)
        progress = {"step": content.get("global_step"), "epoch": content.get("epoch")}
        trained = TrainedModel(model.eval().requires_grad_(False), vocabulary, config, file, progress)
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise UserError(f"{file} does not fit its own configuration: {what}; {WAY_OUT}") from error
    return trained


def read_of_run(file: Path, named: bool) -> tuple[Path, dict[str, Any]]:
    """Return a checkpoint and its contents: the one that was named, or of a run that was killed the last sound one.

    Raises:
        UserError: it cannot be used, and what can.
    """
    try:
        if file.name == "last.ckpt" and not named:
            return newest_sound(file.parent)
        return file, read_checkpoint(file)
    except UserError as mistake:
        *first, last = mistake.messages
        try:
            sound, _ = newest_sound(file.parent) if file.name == "best.ckpt" and not named else (None, None)
        except UserError:
            sound = None
        way_out = f"{sound} is whole: at=last" if sound else WAY_OUT
        raise UserError(*first, f"{last}; {way_out}") from mistake


def read_safetensors(file: Path) -> dict[str, Any]:
    """Return an exported file, whose header holds all but the weights as JSON, as if it were a checkpoint."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(f"{file}: to read it, install the extra: pip install -e '.[export]'") from error
    try:
        with safe_open(file, "pt") as opened:
            header = opened.metadata() or {}
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is no safetensors file, or only a part of one ({error}); {WAY_OUT}") from error
    try:
        identity = json.loads(header["unroll"])
        progress = identity["progress"]
        return {"state_dict": weights, "unroll": identity, "global_step": progress["step"], "epoch": progress["epoch"]}
    except (ValueError, LookupError, TypeError) as error:
        what = "its header has no config and no vocabulary"
        raise UserError(f"{file} was not written by this program: {what}; {WAY_OUT}") from error


def _dtype(weights: dict[str, Tensor], precision: str | None) -> torch.dtype:
    if precision is not None:
        return DTYPES[precision]
    double = any(tensor.dtype is torch.float64 for tensor in weights.values())
    return torch.float64 if double else torch.float32
