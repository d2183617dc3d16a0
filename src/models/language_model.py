"""A recurrence and a readout: ids in, logits over the next character out; and the loss that is minimised."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.config.schema import ModelConfig, check_class
from src.errors import UserError, nearest
from src.models.manual import ManualRNN

State = Any  # a tensor (num_layers, batch, hidden), or the LSTM's pair of them
NO_TARGET = -100  # torch's ignore_index: the padding of items of unequal length


class LanguageModel(nn.Module):
    """A recurrence and its readout.

        o_t = V h_t^L + c        readout `linear`
        o_t = h_t^L              readout `identity`: the tutorial's script reads the hidden state as logits

    The recurrence is a `(inputs, state) -> (hidden, state)`, time first; hidden is that of all layers if `reads_all`.
    """

    def __init__(self, recurrence: nn.Module, vocab_size: int, readout: str = "linear") -> None:
        super().__init__()
        hidden_size = int(recurrence.hidden_size)  # type: ignore[arg-type]  # nn.Module types attributes as tensors
        if reads_all(recurrence):
            hidden_size *= int(recurrence.num_layers)  # type: ignore[arg-type]
        if readout == "identity" and hidden_size != vocab_size:
            what = f"the hidden state is the logits, so hidden_size={hidden_size} must be the vocabulary's {vocab_size}"
            raise UserError(f"readout=identity: {what}; set model.hidden_size={vocab_size} or model.readout=linear")
        self.recurrence = recurrence
        if isinstance(recurrence, ManualRNN):
            recurrence.lends_output = readout == "linear"  # a linear readout does not change the hidden state
        self.readout = nn.Linear(hidden_size, vocab_size) if readout == "linear" else nn.Identity()

    def forward(self, inputs: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return logits (time, batch, vocab) and the state; inputs are ids (time, batch), a state of None is zeros."""
        hidden, state = self.recurrence(inputs, state)
        return self.readout(hidden), state


def reads_all(recurrence: nn.Module) -> bool:
    """Whether a recurrence gives h of all layers to the readout, side by side: model.skip=output."""
    return bool(getattr(getattr(recurrence, "wiring", None), "to_output", False))


def change_parts(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """Return a state with each part changed; None stays None."""
    if isinstance(state, tuple):
        return tuple(map(change, state))
    return state if state is None else change(state)


def detached(state: State) -> State:
    """Return the state outside of the graph that made it: values go on into the next window, gradients do not."""
    return change_parts(state, Tensor.detach)


# Keys that a class may lack, each with the value that has no effect
NEUTRAL = {"num_layers": 1, "nonlinearity": None, "dropout": 0.0, "init": "torch", "input_scale": 1.0}
NEUTRAL |= {"interlayer_scale": 1.0, "skip": None, "dropout_mask": "step", "weight_drop": 0.0}


def build_model(config: ModelConfig, vocab_size: int, trust: str | None = None) -> LanguageModel:
    """Build the model of a configuration; its initial weights are drawn from torch's global generator.

    The class `_target_` gets `input_size`, the keys that it has a parameter for and that are not None, and all of
    `options`. UserError if there is no such class, if it lacks a parameter for a given key, or if it is a class of the
    user's own and not `trust`, the one that the user's command names.
    """
    values, options = vars(config), config.options or {}
    check_class(values["_target_"], trust)
    cls = recurrence_class(values["_target_"])
    parameters = inspect.signature(cls).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        own = [parameter for parameter in parameters if parameter not in ("input_size", *values)]
        lacks = f"{cls.__name__} has no parameter of this name"
        wrong = [f"model.options.{key}: {lacks}{nearest(key, own)}" for key in options if key not in parameters]
        wrong += [
            f"model.{key}={values[key]} is not used by {cls.__name__}, which has {', '.join(parameters)}"
            for key, neutral in NEUTRAL.items()
            if key not in parameters and values[key] not in (neutral, None)
        ]
        if wrong:
            raise UserError(*wrong)
    given = {key: value for key, value in values.items() if key in parameters and value is not None}
    return LanguageModel(cls(input_size=vocab_size, **given, **options), vocab_size, config.readout)


def recurrence_class(target: str) -> type[nn.Module]:
    """Return the class with the dotted path `target`; UserError if there is none or it is not a module of torch."""
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"model._target_={target} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise UserError(f"model._target_={target} is not a class of torch.nn.Module")
    return found


@dataclass
class WindowLoss:
    """The losses of a window; all but `minimised` are detached."""

    minimised: Tensor  # L = sum_t L_t or its mean over time, with its graph
    nats: Tensor  # the sum over the characters
    characters: Tensor  # the number of targets in this process
    everywhere: Tensor  # and in all processes of the run
    logits: Tensor  # (time, batch, vocab)
    targets: Tensor  # (time, batch)
    allowed: Tensor | None = None  # of a task: (time, batch), as in `sequences_right`

    @cached_property
    def losses(self) -> Tensor:
        """Return (time, batch) nats of each character, zero where there is no target."""
        return losses_of(self.logits.to(self.nats.dtype), self.targets)  # the dtype that autocast chose for the loss

    @cached_property
    def real(self) -> Tensor:
        return self.targets != NO_TARGET

    def mean(self) -> Tensor:
        return self.nats / self.characters.clamp(min=1)

    def hits(self) -> Tensor:
        return (self.logits.argmax(-1) == self.targets).sum()


def window_loss(logits: Tensor, targets: Tensor, over_time: str, world_size: int = 1) -> WindowLoss:
    """Return the losses of a window: logits (time, batch, vocab), targets (time, batch), NO_TARGET where there is none.

        L_t = -log softmax(o_t)[target_t]      averaged over the batch
        L   = L_1 + L_2 + ... + L_T            over_time=sum, added in this order, as the tutorial's script adds them
        L   = the mean over all characters     over_time=mean

    Each of several processes has some columns of the batch, and DDP averages their gradients. So each divides by the
    characters of all columns and multiplies by `world_size`: the mean over the processes is the L of a single one.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # a sum in half precision would be rounded
    real = targets != NO_TARGET
    characters = everywhere = real.sum()
    if over_time == "mean" and world_size == 1 and logits.requires_grad:  # training rarely needs each loss
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=NO_TARGET)
        minimised = nats / characters.clamp(min=1)
        return WindowLoss(minimised, nats.detach(), characters, everywhere, logits.detach(), targets)
    losses = losses_of(logits, targets)
    at_t = real.sum(1)
    if world_size > 1:
        torch.distributed.all_reduce(at_t)
        everywhere = at_t.sum()
    if over_time == "sum":
        minimised = sum_in_order(losses.sum(1) / at_t.clamp(min=1))
    else:
        minimised = losses.sum() / everywhere.clamp(min=1)
    if world_size > 1:
        minimised = minimised * world_size
    found = WindowLoss(minimised, losses.detach().sum(), characters, everywhere, logits.detach(), targets)
    found.losses = losses.detach()
    return found


def sequences_right(logits: Tensor, allowed: Tensor) -> tuple[int, int]:
    """Return how many columns of a task's window are right, and how many it has: all first guesses are allowed ones.

    logits (time, batch, vocab); allowed (time, batch), bit i set where id i may stand; 0: no target.
    """
    wanted = allowed != 0
    right = ((allowed >> logits.argmax(-1)) & 1).bool() | ~wanted
    real = wanted.any(0)
    return int((right.all(0) & real).sum()), int(real.sum())


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (time, batch) nats of each character, zero where there is no target, with their graph."""
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=NO_TARGET)
    return each.view(targets.shape)


def sum_in_order(L_t: Tensor) -> Tensor:
    """Return L_1 + L_2 + ... + L_T, added one after another: another order changes the last digits."""
    return sum(L_t.unbind(), L_t.new_zeros(()))


def exact(losses: Tensor) -> Tensor:
    """Return losses in the precision that long sums are kept in; Apple's GPUs know no float64."""
    return losses.float() if losses.device.type == "mps" else losses.double()
