"""Carry a trained model away: where the file goes, what it says of itself; it has its name only once it is whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from src import paths
from src.mistakes import Mistake
from src.models.export import export_onnx, export_safetensors, export_torch
from src.training.locate import run_of
from src.training.reading import FORMAT
from src.training.run import write_atomically
from src.training.trained import TrainedModel
from src.training.wanted import EXPORTED, mistakes_in_output

WRITERS = {"onnx": export_onnx, "torch": export_torch, "safetensors": export_safetensors}


class Exported(NamedTuple):
    """What was written, and the largest difference from the model that the check found."""

    files: list[Path]
    difference: float


def export_to(trained: TrainedModel, format: str, output: str | None = None) -> Exported:
    """Write a model as `onnx`, `torch` or `safetensors`; the weights get their configuration beside them as JSON.

    Raises:
        Mistake: an extra that is missing, a place that will not do, a file that does not agree with the model.
    """
    if wrong := mistakes_in_output(format, output):
        raise Mistake(*wrong)
    target = paths.given(output) if output else folder_for(trained) / EXPORTED[format]
    target.parent.mkdir(exist_ok=True)
    # torch.export insists on its own ending, so the temporary name keeps it
    temporary = target.with_name(f".{os.getpid()}.{EXPORTED[format]}")
    try:
        difference = WRITERS[format](trained.model, temporary, header(trained))
        os.umask(umask := os.umask(0))
        temporary.chmod(0o666 & ~umask)  # safetensors writes for its owner alone
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    files = [target]
    if format == "safetensors":
        files.append(target.with_suffix(".json"))
        write_atomically(files[1], json.dumps(identity(trained), indent=2, ensure_ascii=False) + "\n")
    return Exported(files, difference)


def folder_for(trained: TrainedModel) -> Path:
    """`export/` in the run's folder, or beside a checkpoint that was carried elsewhere."""
    return (run_of(trained.path) or trained.path.parent) / "export"


def identity(trained: TrainedModel) -> dict[str, object]:
    """What makes the file a model: the same words as in a checkpoint."""
    vocabulary = {**trained.vocabulary.to_plain(), "symbols": list(trained.vocabulary.symbols)}
    return {"format": FORMAT, "vocabulary": vocabulary, "config": trained.config, "progress": trained.progress}


def header(trained: TrainedModel) -> dict[str, str]:
    """The identity as JSON, whole under `unroll`, and the two that other programs want by themselves."""
    plain = identity(trained)
    return {
        "unroll": json.dumps(plain, ensure_ascii=True),
        "vocabulary": json.dumps(plain["vocabulary"], ensure_ascii=True),
        "config": json.dumps(plain["config"], ensure_ascii=True),
    }
