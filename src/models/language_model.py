"""A recurrence and a readout: ids in, logits over the next character out."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from src.config.schema import ModelConfig
from src.errors import UserError, nearest
from src.models.manual import ManualRNN

State = Any  # a tensor (num_layers, batch, hidden), or the LSTM's pair of them


class LanguageModel(nn.Module):
    """A recurrence and its readout.

        o_t = V h_t^L + c        readout `linear`
        o_t = h_t^L              readout `identity`: the tutorial's script reads the hidden state as logits

    Args:
        recurrence: `(inputs, state) -> (hidden, state)`, time first.
        vocab_size: the number of different characters.
        readout: `linear` or `identity`; the latter needs hidden_size = vocab_size.

    Raises:
        UserError: an identity readout, and hidden_size is not vocab_size.
    """

    def __init__(self, recurrence: nn.Module, vocab_size: int, readout: str = "linear") -> None:
        super().__init__()
        hidden_size = int(recurrence.hidden_size)  # type: ignore[arg-type]  # nn.Module types attributes as tensors
        if readout == "identity" and hidden_size != vocab_size:
            raise UserError(
                f"readout=identity reads the hidden state as logits, so hidden_size={hidden_size} must be the "
                f"vocabulary's {vocab_size}; set model.hidden_size={vocab_size} or model.readout=linear"
            )
        self.recurrence = recurrence
        if isinstance(recurrence, ManualRNN):
            recurrence.lends_output = readout == "linear"  # a linear readout does not change the hidden state
        self.readout = nn.Linear(hidden_size, vocab_size) if readout == "linear" else nn.Identity()

    def forward(self, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return logits (time, batch, vocab) and the state; inputs are ids (time, batch), a state of None is zeros."""
        hidden, state = self.recurrence(inputs, state)
        return self.readout(hidden), state


def detached(state: State) -> State:
    """Return the state outside of the graph that made it: values go on into the next window, gradients do not."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return state if state is None else state.detach()


def moved(state: State, device: torch.device) -> State:
    """Return the state on a device."""
    if isinstance(state, tuple):
        return tuple(part.to(device) for part in state)
    return state if state is None else state.to(device)


# Keys that not every class has, and the value at which a class may lack them: it does just that
NEUTRAL = {
    "num_layers": 1,
    "nonlinearity": None,
    "dropout": 0.0,
    "init": "torch",
    "input_scale": 1.0,
    "interlayer_scale": 1.0,
}


def build_model(config: ModelConfig, vocab_size: int) -> LanguageModel:
    """Build the model of a configuration; its initial weights are drawn from torch's global generator.

    The recurrence is the class `_target_`. Its constructor gets `input_size`, those keys of the configuration that it
    has a parameter for and that are not None, and all of `options`.

    Raises:
        UserError: `_target_` names no class of `torch.nn.Module`, or one that lacks a parameter for a given key.
    """
    values, options = vars(config), config.options or {}
    cls = recurrence_class(values["_target_"])
    parameters = inspect.signature(cls).parameters
    _check_parameters(cls.__name__, values, options, parameters)
    given = {key: value for key, value in values.items() if key in parameters and value is not None}
    return LanguageModel(cls(input_size=vocab_size, **given, **options), vocab_size, config.readout)


def _check_parameters(
    name: str, values: Mapping[str, Any], options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    """Raise UserError with every key that is given and that the class has no parameter for."""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    own = [parameter for parameter in parameters if parameter not in ("input_size", *values)]
    lacking = [option for option in options if option not in parameters]
    wrong = [f"model.options.{key}: {name} has no parameter of this name{nearest(key, own)}" for key in lacking]
    for key, neutral in NEUTRAL.items():
        if key not in parameters and values[key] not in (neutral, None):
            wrong.append(f"model.{key}={values[key]} is not used by {name}, which has {', '.join(parameters)}")
    if wrong:
        raise UserError(*wrong)


def recurrence_class(target: str) -> type[nn.Module]:
    """Return the class with the dotted path `target`.

    Raises:
        UserError: it cannot be imported, or is not a module of torch.
    """
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"model._target_={target} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise UserError(f"model._target_={target} is not a class of torch.nn.Module")
    return found
