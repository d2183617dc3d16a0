"""A trained model in another implementation: the same weights, the same numbers, another code that computes them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from src.mistakes import Mistake
from src.models.build import build_model
from src.models.convert import convert_

if TYPE_CHECKING:
    from src.training.trained import TrainedModel

# The implementations of one architecture, whose weights move without loss; conf/model/ has the same names and classes.
IMPLEMENTATIONS = {
    "cell": "src.models.cell.CellRNN",
    "stacked": "src.models.stacked.StackedRNN",
    "manual": "src.models.manual.ManualRNN",
}


def implementation_words(words: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a `model` group that describes the same network in the implementation `name`.

    Raises:
        Mistake: it has other equations, so the weights would mean something else there.
    """
    if name == words["name"]:
        return words
    if name not in IMPLEMENTATIONS or words["name"] not in IMPLEMENTATIONS:
        way_out = f"{', '.join(IMPLEMENTATIONS)} share theirs"
        if words["name"] not in IMPLEMENTATIONS:
            way_out = f"only {way_out}; leave model= out"
        raise Mistake(f"model={name}: the weights of a {words['name']} model mean something else there; {way_out}")
    return {**words, "name": name, "_target_": IMPLEMENTATIONS[name]}


def in_implementation(trained: TrainedModel, name: str) -> TrainedModel:
    """Return the model with its weights in `cell`, `stacked` or `manual`; itself where it is that already.

    Raises:
        Mistake: as `implementation_words`.
    """
    words = implementation_words(trained.config["model"], name)
    if words is trained.config["model"]:
        return trained
    dtype = next(trained.model.parameters()).dtype
    with torch.random.fork_rng(devices=[]):  # random weights first, which are then replaced
        other = build_model(words, len(trained.vocabulary)).to(dtype)
    convert_(other, trained.model)
    other.eval().requires_grad_(False)
    return dataclasses.replace(trained, model=other, config={**trained.config, "model": words})
