"""Characters one after another: read the prompt once, then draw, and feed back what was drawn.

The prefix is never read again: the state holds all that the model knows of it, so every character costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from src.models.language_model import LanguageModel, State
from src.models.sampling import Choice
from src.models.stepper import stepper

READ_AT_ONCE = 1024  # steps of the prompt in one window: long enough for fast products, small in memory
DRAWN_AT_ONCE = 256
MOST = 1 - 2.0**-52  # u * sum must stay below sum after rounding; see sampling.draw


class Generation:
    """An endless iterator over ids (batch,), one step of all streams a time.

    Args:
        model: on the CPU; float32 or float64.
        prompt: ids (length,) of 1 or more, read from a zero state.
        choice: how a character is chosen.
        seeds: one a stream. Stream i draws from its own generator, so it does not depend on who runs beside it.
        boundary: an id after which a stream starts anew from a zero state, as each item of a list does in training.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: np.ndarray,
        choice: Choice,
        seeds: Sequence[int],
        boundary: int | None = None,
    ) -> None:
        logits, state = read(model, prompt)
        self.batch = len(seeds)
        self.logits = np.repeat(logits[None], self.batch, axis=0)  # of the character to be drawn next
        self.stepper = stepper(model, self.batch, widened(state, self.batch))
        self.draw = choice.drawer()
        self.uniform = uniform_numbers(seeds)
        self.boundary = boundary
        self.drawn: np.ndarray | None = None  # drawn and not yet read

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        """Read what was drawn last, and draw what follows."""
        if self.drawn is not None:
            if self.boundary is not None and (ended := self.drawn == self.boundary).any():
                self.stepper.restart(ended)
            self.logits = self.stepper.step(self.drawn)
        self.drawn = self.draw(self.logits, next(self.uniform))
        return self.drawn


def read(model: LanguageModel, prompt: np.ndarray) -> tuple[np.ndarray, State]:
    """prompt ids (length,) -> logits (vocab,) of what follows, and the state (layers, 1, hidden) behind it."""
    inputs = torch.from_numpy(prompt.astype(np.int64))[:, None]
    state: State = None
    with torch.inference_mode():
        for window in inputs.split(READ_AT_ONCE):
            logits, state = model(window, state)
    return logits[-1, 0].numpy(), state


def widened(state: State, batch: int) -> State:
    """Return the state (layers, 1, hidden) of one stream as that of `batch` equal ones."""
    if isinstance(state, tuple):
        return tuple(part.expand(-1, batch, -1) for part in state)
    return state.expand(-1, batch, -1)


def uniform_numbers(seeds: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield (batch,) numbers in [0, 1) without end, number i from the generator of seed i."""
    generators = [np.random.default_rng(seed) for seed in seeds]
    while True:
        block = np.stack([generator.random(DRAWN_AT_ONCE) for generator in generators], axis=1)
        yield from np.minimum(block, MOST)
