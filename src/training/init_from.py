"""`init_from=`: training starts from the weights of another run, in the same or another implementation.

The vocabulary is taken over: ids keep their meaning. Characters that the new text adds (data.unknown=extend) get new
columns of U and rows of V, drawn as for a new model; for the others the new model computes what the old one did.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from src.config.schema import Config
from src.data.vocabulary import Vocabulary
from src.errors import UserError
from src.inference.load import load
from src.inference.trained_model import TrainedModel, implementation_words
from src.models.convert import Layer, convert_, read_layers, write_layers
from src.models.gated import Gated
from src.models.language_model import LanguageModel

SIZES = ("num_layers", "hidden_size", "nonlinearity", "readout")  # of the network itself, fixed by the weights


def source_of(config: Config) -> TrainedModel | None:
    """Return the model that a run starts from, or None.

    Raises:
        UserError: no model there, other sizes, or other equations.
    """
    if config.init_from is None:
        return None
    source = load(config.init_from)
    asked, given = config.model, source.config.model
    if asked._target_ != given._target_:
        implementation_words(given, asked.name)
    wrong = [
        f"model.{key}={getattr(asked, key)}: the weights of init_from={config.init_from} have {getattr(given, key)}; "
        "leave it out"
        for key in SIZES
        if getattr(asked, key) != getattr(given, key)
    ]
    if wrong:
        raise UserError(*wrong)
    return source


def check_growth(source: TrainedModel, vocabulary: Vocabulary, unknown: str | None) -> None:
    """Raise UserError if the vocabulary has grown and the hidden state, which is the logits, cannot."""
    if source.config.model.readout == "identity" and len(vocabulary) != len(source.vocabulary):
        raise UserError(
            f"data.unknown={unknown}: the hidden state is the logits here (model.readout=identity), so its size is the "
            "vocabulary's and cannot grow; use data.unknown=error"
        )


def start_from(model: LanguageModel, source: TrainedModel, vocabulary: Vocabulary) -> dict[str, Any]:
    """Make a new model, in place, compute what `source` does; return the entry for run.json.

    Raises:
        UserError: a recurrence class of the user's own and a longer vocabulary.
    """
    known, now = len(source.vocabulary), len(vocabulary)
    old = source.model.to(next(model.parameters()).dtype)
    if known == now:
        convert_(model, old)
    else:
        assert isinstance(model.readout, nn.Linear) and isinstance(old.readout, nn.Linear)
        with torch.no_grad():  # V and c keep the new rows
            model.readout.weight[:known] = old.readout.weight
            model.readout.bias[:known] = old.readout.bias
        _extend_recurrence(model.recurrence, old.recurrence)
    return {
        "path": str(source.path),
        "model": source.config.model.name,
        **source.progress,
        "vocabulary": source.vocabulary.to_plain(),
        "characters_added": list(vocabulary.symbols[known:]),
    }


@torch.no_grad()
def _extend_recurrence(into: nn.Module, source: nn.Module) -> None:
    """Copy a recurrence; U of the first layer keeps the columns of the new characters."""
    if isinstance(into, Gated):
        weights, name = source.state_dict(), "rnn.weight_ih_l0"
        weights[name] = torch.cat([weights[name], into.state_dict()[name][:, weights[name].size(1) :]], dim=1)
        into.load_state_dict(weights)
        return
    try:
        (U, W, b), *above = read_layers(source)
        new = read_layers(into)[0].U
    except TypeError as error:
        raise UserError(
            f"data.unknown=extend: {type(into).__name__} does not say where the weights of new characters belong; "
            "use data.unknown=error, or a model of this project"
        ) from error
    write_layers(into, [Layer(torch.cat([U, new[:, U.size(1) :]], dim=1), W, b), *above])
