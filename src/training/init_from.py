"""`init_from=`: training starts from the weights of another run, in the same or another implementation.

The vocabulary goes along: ids that were keep their meaning. Characters that the new text adds (data.unknown=extend)
get columns of U and rows of V as they are drawn for a new model; everything the model knew it computes as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from src.config.schema import Config
from src.data.vocabulary import Vocabulary
from src.errors import UserError
from src.inference.load import load
from src.inference.trained_model import TrainedModel, implementation_config
from src.models.convert import Layer, convert_, read_layers, write_layers
from src.models.gated import Gated
from src.models.language_model import LanguageModel

SIZES = ("num_layers", "hidden_size", "nonlinearity", "readout")  # of the network itself, so they come with the weights


def source_of(config: Config) -> TrainedModel | None:
    """Return the model that a run starts from, or None; refuse one whose weights do not fit what is asked for.

    Raises:
        UserError: no model there, other sizes, or other equations.
    """
    if config.init_from is None:
        return None
    source = load(config.init_from)
    words, theirs = config.model, source.config.model
    if words["_target_"] != theirs["_target_"]:
        implementation_config(theirs, words["name"])
    wrong = [
        f"model.{key}={words[key]}: the weights of init_from={config['init_from']} have {theirs[key]}; leave it out"
        for key in SIZES
        if words[key] != theirs[key]
    ]
    if wrong:
        raise UserError(*wrong)
    return source


def check_growth(source: TrainedModel, vocabulary: Vocabulary, unknown: str | None) -> None:
    """Raise UserError where the vocabulary has grown and the hidden state, which is the logits, cannot."""
    if source.config.model.readout == "identity" and len(vocabulary) != len(source.vocabulary):
        raise UserError(
            f"data.unknown={unknown}: the hidden state is the logits here (model.readout=identity), so its size is the "
            "vocabulary's and cannot grow; use data.unknown=error"
        )


def start_from(model: LanguageModel, source: TrainedModel, vocabulary: Vocabulary) -> dict[str, Any]:
    """Make a new model, in place, compute what `source` does; return what run.json is to say of it.

    Raises:
        UserError: a recurrence of one's own and a longer vocabulary, whose new weights only its author could place.
    """
    known, now = len(source.vocabulary), len(vocabulary)
    theirs = source.model.to(next(model.parameters()).dtype)
    if known == now:
        convert_(model, theirs)
    else:
        assert isinstance(model.readout, nn.Linear) and isinstance(theirs.readout, nn.Linear)
        _extend_readout(model.readout, theirs.readout)
        _extend_recurrence(model.recurrence, theirs.recurrence)
    return {
        "path": str(source.path),
        "model": source.config.model.name,
        **source.progress,
        "vocabulary": source.vocabulary.to_plain(),
        "characters_added": list(vocabulary.symbols[known:]),
    }


@torch.no_grad()
def _extend_recurrence(into: nn.Module, source: nn.Module) -> None:
    """U of the first layer keeps the columns that `into` was born with where `source` has none."""
    if isinstance(into, Gated):
        weights = source.state_dict()
        name = "rnn.weight_ih_l0"
        weights[name] = torch.cat([weights[name], into.state_dict()[name][:, weights[name].size(1) :]], dim=1)
        into.load_state_dict(weights)
        return
    try:
        (U, W, b), *above = read_layers(source)
        born = read_layers(into)[0].U
    except TypeError as error:
        raise UserError(
            f"data.unknown=extend: where a {type(into).__name__} keeps the weights of new characters, only its author "
            "knows; use data.unknown=error, or a model of this project"
        ) from error
    write_layers(into, [Layer(torch.cat([U, born[:, U.size(1) :]], dim=1), W, b), *above])


@torch.no_grad()
def _extend_readout(into: nn.Linear, source: nn.Linear) -> None:
    """V and c keep the rows that `into` was born with where `source` has none."""
    into.weight[: source.out_features] = source.weight
    into.bias[: source.out_features] = source.bias
