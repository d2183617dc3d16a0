"""What is timed: one train step (forward, backward, Adam) of one implementation at one size."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F

from src.models.build import build_model
from src.models.language_model import LanguageModel, State, detached
from src.training.optimizers import build_optimizer


class Size(NamedTuple):
    """A network and its windows."""

    hidden_size: int
    num_layers: int
    seq_len: int
    batch_size: int
    vocab_size: int = 65  # Tiny Shakespeare's

    @property
    def characters(self) -> int:
        """Characters of a window."""
        return self.seq_len * self.batch_size

    def __str__(self) -> str:
        layers = f"{self.num_layers} layer{'s' * (self.num_layers > 1)} of {self.hidden_size} units"
        return f"{layers}, windows of {self.seq_len} steps x {self.batch_size} streams, {self.vocab_size} characters"


SIZES = (
    Size(128, 1, 64, 32),
    Size(128, 2, 50, 50),
    Size(256, 1, 100, 64),
    Size(512, 2, 100, 64),
    Size(1024, 2, 128, 64),
)


class Case(NamedTuple):
    """An implementation: its class, how many gates of U and W it has, and whether it runs under bf16 autocast."""

    target: str
    gates: int = 1
    bf16: bool = False


CASES = {
    "cell": Case("src.models.cell.CellRNN"),
    "stacked": Case("src.models.stacked.StackedRNN"),
    "manual": Case("src.models.manual.ManualRNN"),
    "stacked_bf16": Case("src.models.stacked.StackedRNN", bf16=True),
    "manual_bf16": Case("src.models.manual.ManualRNN", bf16=True),
    "lstm": Case("src.models.gated.LSTM", gates=4),
    "gru": Case("src.models.gated.GRU", gates=3),
}


def operations(case: Case, size: Size) -> float:
    """Return the multiplications and additions of a train step that lie in matrix products, 2 for each pair.

    What the equations need, whatever an implementation does: three products (forward, for the deltas, for the weights)
    of each U, W and V, but for the first layer's U, of which a one-hot input picks a column.
    """
    H = size.hidden_size
    weights = case.gates * H * H * (2 * size.num_layers - 1) + H * size.vocab_size
    return 3 * 2.0 * weights * size.characters


def build(case: Case, size: Size, seed: int = 0) -> LanguageModel:
    """Return a fresh model."""
    torch.manual_seed(seed)
    words = {"hidden_size": size.hidden_size, "num_layers": size.num_layers, "readout": "linear"}
    return build_model({"_target_": case.target, **words}, size.vocab_size)


def window(size: Size, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random ids and targets, (time, batch)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(size.vocab_size, (2, size.seq_len, size.batch_size), generator=generator)
    return ids[0], ids[1]


def loss_of(
    model: LanguageModel, inputs: torch.Tensor, targets: torch.Tensor, state: State, bf16: bool
) -> tuple[torch.Tensor, State]:
    """Run a window forward: the mean cross-entropy of its characters, and the state."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits, state = model(inputs, state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state


class Step:
    """One train step after another; the state is carried, detached, as in training."""

    def __init__(self, name: str, size: Size) -> None:
        self.bf16 = CASES[name].bf16
        self.model = build(CASES[name], size)
        self.optimizer = build_optimizer(self.model.parameters(), {"name": "adam", "lr": 1e-3})  # as in training
        self.inputs, self.targets = window(size)
        self.state: State = None

    def __call__(self) -> None:
        loss, state = loss_of(self.model, self.inputs, self.targets, self.state, self.bf16)
        self.state = detached(state)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
