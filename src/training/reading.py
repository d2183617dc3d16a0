"""A checkpoint read and checked, without Lightning: whoever only uses a model need not wait for its import."""

from __future__ import annotations

import logging
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from src.mistakes import Mistake

FORMAT = 1
# What torch.load raises of bytes that are no checkpoint, or one whose pickle asks for more than plain data
FOREIGN = (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError)
# What zipfile raises of a file that is none, or whose directory was altered
NO_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
log = logging.getLogger(__name__)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents.

    Raises:
        Mistake: no such file, a torn or altered one, a file of another program, a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise Mistake(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()  # torch.load itself accepts a file with a flipped byte
            odd = next((member.filename for member in archive.infolist() if is_odd(member)), None)
    except NO_ZIP as error:
        raise Mistake(f"{path} is no checkpoint, or only a part of one ({error})") from error
    if torn is not None:
        raise Mistake(f"{path} is damaged: {torn} in it does not have the checksum it was written with")
    if odd is not None:
        raise Mistake(f"{path} is damaged: {odd} in it is not described as it was written")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except FOREIGN as error:
        raise Mistake(
            f"{path} holds more than plain data, or something else than a checkpoint; it was not loaded"
        ) from error
    ours = checkpoint.get("unroll") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict) or "format" not in ours:
        raise Mistake(f"{path} was not written by this program: it has no config and no vocabulary inside")
    if ours["format"] != FORMAT:
        raise Mistake(f"{path} has format {ours['format']}; this version reads format {FORMAT}")
    return checkpoint


def is_odd(member: zipfile.ZipInfo) -> bool:
    """Whether a member is not what torch.save writes, a plain file stored as it is: no checksum covers these words."""
    return bool(member.is_dir() or member.external_attr or member.compress_type != zipfile.ZIP_STORED)


def newest_sound(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the last checkpoint of a run that is whole: `last.ckpt`, or the one before it, which is said.

    Raises:
        Mistake: there is none, or none is whole.
    """
    troubles: list[str] = []
    for name in ("last.ckpt", "previous.ckpt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            return path, read_checkpoint(path)
        except Mistake as trouble:
            troubles.extend(trouble.messages)
            log.warning("%s; trying the one before it", trouble)
    raise Mistake(*troubles) if troubles else Mistake(f"{folder} holds no last.ckpt and no previous.ckpt")
