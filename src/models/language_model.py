"""A recurrence and a readout: ids in, logits over the next character out."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from src.errors import UserError, nearest
from src.models.manual import ManualRNN

State = Any  # a tensor (num_layers, batch, hidden), or the LSTM's pair of them


class LanguageModel(nn.Module):
    """What every model of this project is.

        o_t = V h_t^L + c        readout `linear`
        o_t = h_t^L              readout `identity`: the tutorial's script reads the hidden state as logits

    Args:
        recurrence: `(inputs, state) -> (hidden, state)`, time first.
        vocab_size: how many characters there are to tell apart.
        readout: `linear` or `identity`; the latter needs hidden_size = vocab_size.

    Raises:
        UserError: an identity readout of a hidden size that is not the vocabulary's.
    """

    def __init__(self, recurrence: nn.Module, vocab_size: int, readout: str = "linear") -> None:
        super().__init__()
        hidden_size = int(recurrence.hidden_size)  # type: ignore[arg-type]  # nn.Module types every attribute as a tensor
        if readout == "identity" and hidden_size != vocab_size:
            raise UserError(
                f"readout=identity reads the hidden state as logits, so hidden_size={hidden_size} must be the "
                f"vocabulary's {vocab_size}; set model.hidden_size={vocab_size} or model.readout=linear"
            )
        self.recurrence = recurrence
        if isinstance(recurrence, ManualRNN):
            recurrence.lends_output = readout == "linear"  # which leaves the hidden state as it is
        self.readout = nn.Linear(hidden_size, vocab_size) if readout == "linear" else nn.Identity()

    def forward(self, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
        """inputs (time, batch) ids, state as the recurrence has it or None; logits (time, batch, vocab), state."""
        hidden, state = self.recurrence(inputs, state)
        return self.readout(hidden), state


def detached(state: State) -> State:
    """Cut the state from the graph that made it: gradients stop at the border of a window, values go on."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return state if state is None else state.detach()


def moved(state: State, device: torch.device) -> State:
    """Return the state on a device."""
    if isinstance(state, tuple):
        return tuple(part.to(device) for part in state)
    return state if state is None else state.to(device)


# ---- From the words of a configuration to a model. The one place that turns a name into a class.


def build_model(words: Mapping[str, Any], vocab_size: int) -> LanguageModel:
    """Build the language model that `words` (the `model` group of conf/) describes, drawing from torch's generator.

    The recurrence is the class named by `_target_`. It is given those of our words that its constructor has and that
    are not None, and all of `options`: the words of a cell of one's own.

    Raises:
        UserError: `_target_` names no class of `torch.nn.Module`, or one without a word that was given.
    """
    cls, options = recurrence_class(words["_target_"]), words.get("options") or {}
    known = inspect.signature(cls).parameters
    _check_words(cls.__name__, words, options, known)
    given = {word: value for word, value in words.items() if word in known and value is not None}
    recurrence = cls(input_size=vocab_size, **given, **options)
    return LanguageModel(recurrence, vocab_size, words["readout"])


# What a word means where it is left out. A class without the word does just that, and can do nothing else.
LEFT_OUT = {
    "num_layers": 1,
    "nonlinearity": None,
    "dropout": 0.0,
    "init": "torch",
    "input_scale": 1.0,
    "interlayer_scale": 1.0,
}


def _check_words(
    name: str, words: Mapping[str, Any], options: Mapping[str, Any], known: Mapping[str, inspect.Parameter]
) -> None:
    """Raise UserError for each word that the class would not get, though it was given."""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    own = [word for word in known if word not in ("input_size", *words)]
    lacking = [word for word in options if word not in known]
    wrong = [f"model.options.{word}: {name} has no such word{nearest(word, own)}" for word in lacking]
    for word, left_out in LEFT_OUT.items():
        if word not in known and words.get(word, left_out) not in (left_out, None):
            wrong.append(f"model.{word}={words[word]} means nothing for {name}, which has {', '.join(known)}")
    if wrong:
        raise UserError(*wrong)


def recurrence_class(target: str) -> type[nn.Module]:
    """Return the class with the dotted path `target`.

    Raises:
        UserError: there is none, or it is not a module of torch.
    """
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"model._target_={target} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise UserError(f"model._target_={target} is not a class of torch.nn.Module")
    return found
