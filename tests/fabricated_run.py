"""A run folder with an untrained model: random weights, scaled up so that its probabilities are far from uniform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf

from src.config.schema import Config, from_plain, to_plain
from src.data.corpus import Corpus, open_corpus
from src.inference.load import FORMAT
from src.models.language_model import build_model
from src.training.checkpoint import AtomicCheckpointIO

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("cell", "stacked", "manual", "lstm", "gru")
VERSE = "The rain it raineth every day,\nand every day it rains: (hey, ho!)\n" * 12


def configuration(model: str, data: str = "text", **keys: Any) -> Config:
    """Return a configuration as Hydra composes it, as far as using a model needs it; `keys` are dotted."""
    *defaults, option = _files("model", model)
    parts = [*defaults, *_files("data", data), option]
    cfg = OmegaConf.merge(OmegaConf.structured(Config), *parts)
    small = {"model.num_layers": 2, "model.hidden_size": 13, "model.readout": "linear"}
    plain_start = {"model.init": "torch", "model.input_scale": 1.0, "model.interlayer_scale": None}  # no chaos
    for key, value in (small | plain_start | keys).items():
        OmegaConf.update(cfg, key, value)
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return from_plain({str(key): value for key, value in plain.items()})


def _files(group: str, name: str) -> list[Any]:
    """Return the files of a group's option, its base first if it has one."""
    own: Any = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    bases = [base for base in own.pop("defaults", []) if isinstance(base, str) and base != "_self_"]
    parts = [*(OmegaConf.load(ROOT / "conf" / group / f"{base}.yaml") for base in bases), own]
    return [{"model": part} if group == "model" else part for part in parts]


def fabricate(
    folder: Path, model: str = "manual", text: str | bytes = VERSE, data: str = "text", loud: float = 3.0, **keys: Any
) -> Path:
    """Make a run in `folder` on `text`, with checkpoints best and last, and return the folder.

    `loud`: the factor on the random weights; with 3, rounding errors grow in the state.
    """
    folder.mkdir(parents=True)
    source = folder / "text.txt"
    source.write_bytes(text.encode() if isinstance(text, str) else text)
    config = configuration(model, data, **{"data.path": str(source)} | keys)
    corpus = open_corpus(config.data)
    write(folder, config, corpus, loud)
    return folder


def write(folder: Path, config: Config, corpus: Corpus, loud: float) -> None:
    """Write the files of a finished run."""
    torch.manual_seed(3)
    model = build_model(config.model, len(corpus.vocabulary))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(loud)
    dtype = torch.float64 if config.trainer.precision == "64-true" else torch.float32
    weights = {f"model.{name}": value.to(dtype) for name, value in model.state_dict().items()}
    identity = {"format": FORMAT, "config": to_plain(config), "corpus": corpus.key}
    identity["vocabulary"] = corpus.vocabulary.to_plain()
    for name in ("last", "best"):
        checkpoint = {"state_dict": weights, "unroll": identity, "global_step": 7, "epoch": 1}
        AtomicCheckpointIO().save_checkpoint(checkpoint, folder / "checkpoints" / f"{name}.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))
    (folder / "run.json").write_text(json.dumps({"status": "done", "data_provenance": corpus.provenance}))
