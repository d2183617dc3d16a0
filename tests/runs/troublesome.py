"""A cell that fails as a test asks: it raises an error, ends or kills its process, or is slow."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from torch import Tensor

from src.models.cell import CellRNN

LEAVES: dict[str, BaseException] = {
    "exit0": SystemExit(0),
    "exit3": SystemExit(3),
    "keyboard": KeyboardInterrupt(),
    "generator": GeneratorExit(),
    "surrogate": ValueError("half a pair: \ud800"),
}


class Troublesome(CellRNN):
    """The plain cell; it fails until the files that `raises` and `kills` name exist.

    `leaves` names what it raises after three steps.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: str = "tanh",
        number: int = 0,
        raises: str = "",
        kills: str = "",
        seconds: float = 0.0,
        leaves: str = "",
    ) -> None:
        super().__init__(input_size, hidden_size, nonlinearity=nonlinearity)
        self.number, self.raises, self.kills, self.seconds, self.leaves = number, raises, kills, seconds, leaves
        self.steps = 0

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.steps += 1
        time.sleep(self.seconds)
        if self.number in (3, 7) and self.raises and not Path(self.raises).exists():
            raise RuntimeError(f"cell {self.number} is broken\nin two lines")
        if self.steps > 3 and self.leaves in LEAVES:
            raise LEAVES[self.leaves]
        if self.number == 1 and self.kills and self.steps > 3 and not Path(self.kills).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(inputs, state)
