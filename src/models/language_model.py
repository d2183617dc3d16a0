"""A recurrence and a readout: ids in, logits over the next character out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from src.mistakes import Mistake
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
        Mistake: an identity readout of a hidden size that is not the vocabulary's.
    """

    def __init__(self, recurrence: nn.Module, vocab_size: int, readout: str = "linear") -> None:
        super().__init__()
        hidden_size = int(recurrence.hidden_size)  # type: ignore[arg-type]  # nn.Module types every attribute as a tensor
        if readout == "identity" and hidden_size != vocab_size:
            raise Mistake(
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
