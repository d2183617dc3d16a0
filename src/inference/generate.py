"""Characters one after another: read the prompt once, then draw, and feed back what was drawn.

The prefix is never read again: the state holds all that the model knows of it, so every character costs the same.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.data.vocabulary import TextStream, Vocabulary
from src.errors import UserError
from src.inference.incremental import stepper
from src.inference.options import Choice, Writing
from src.models.language_model import LanguageModel, State

if TYPE_CHECKING:
    from src.inference.trained_model import TrainedModel


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


# ---- A trained model writes: prompts read, samples drawn, ids turned into text as they come.

log = logging.getLogger(__name__)


def generation(trained: TrainedModel, prompt: str, wanted: Writing) -> Generation:
    """Read the prompt, and return what writes on without end.

    Raises:
        UserError: everything that is wrong with what is wanted, or with the prompt.
    """
    wrong = wanted.mistakes(len(trained.vocabulary))
    try:
        ids = trained.ids(prompt, "prompt")
    except UserError as mistake:
        raise UserError(*wrong, *mistake.messages) if wrong else mistake from None
    if wrong:
        raise UserError(*wrong)
    boundary = trained.boundary_id
    if boundary is not None:  # of a list, only the item that is not finished counts, from its boundary on
        begins = np.flatnonzero(ids == boundary)
        ids = ids[begins[-1] :] if len(begins) else np.concatenate((np.array([boundary], ids.dtype), ids))
    first = seeded(wanted).seed or 0
    return Generation(trained.model, ids, wanted.choice, range(first, first + wanted.num_samples), boundary)


def seeded(wanted: Writing) -> Writing:
    """The same with a seed: one is drawn where none was given."""
    return replace(wanted, seed=secrets.randbelow(2**31)) if wanted.seed is None else wanted


def written(trained: TrainedModel, prompt: str, wanted: Writing) -> Iterator[list[str]]:
    """Yield step by step what each sample has newly and for certain written, and at last what was held back."""
    going = generation(trained, prompt, wanted)
    return pieces(going, trained.vocabulary, replace(wanted, stop=stop_of(trained, wanted.stop)))


def pieces(ids: Iterator[np.ndarray], vocabulary: Vocabulary, wanted: Writing) -> Iterator[list[str]]:
    """As `written`, from a generation: `wanted.length` steps, or until all stopped."""
    steps = (step.tolist() for step in islice(ids, wanted.length))
    if vocabulary.kind == "characters" and wanted.stop is None:  # an id is a character: nothing is ever held back
        characters = [vocabulary.decode([id]) for id in range(len(vocabulary))]
        yield from ([characters[id] for id in step] for step in steps)
        return
    texts = [TextStream(vocabulary, wanted.stop) for _ in range(wanted.num_samples)]
    for step in steps:
        yield [text.feed(id) for text, id in zip(texts, step, strict=True)]
        if wanted.stop is not None and all(text.stopped for text in texts):
            break
    yield [text.finish() for text in texts]


def stop_of(trained: TrainedModel, stop: str | None) -> str | None:
    """The stop text in the case that the model writes in; one that can never come is said, and does no harm."""
    if stop is None:
        return None
    stop, vocabulary = trained.in_its_case(stop), trained.vocabulary
    written = {vocabulary.decode([id]) for id in range(len(vocabulary))}
    if vocabulary.kind == "bytes":  # a lone surrogate is an odd byte of the command line, which is written as U+FFFD
        codes = {*vocabulary.codes}
        written |= {one for one in stop if not "\ud800" <= one <= "\udfff" and codes.issuperset(one.encode())}
    if lacking := sorted(set(stop) - written):
        names = ", ".join(map(repr, lacking))
        log.warning("stop=%r never comes: the model does not write %s", stop, names)
    return stop


class Conversation:
    """One text after another: a prompt begins a new one, an empty one goes on where the last has paused.

    Args:
        trained: who writes.
        wanted: as for one sample. Each new text has a seed of its own, from `wanted.seed` on.
    """

    def __init__(self, trained: TrainedModel, wanted: Writing) -> None:
        self.trained, self.wanted = trained, wanted
        self.stop = stop_of(trained, wanted.stop)
        self.seeds = count(seeded(wanted).seed or 0)
        self.going: Generation | None = None

    def turn(self, prompt: str) -> Iterator[str]:
        """Return what is written next, piece by piece, `wanted.length` symbols or up to the stop text.

        Raises:
            UserError: what is wrong with the prompt, at once; the text before it can still be gone on with.
        """
        if prompt or self.going is None:
            wanted = replace(self.wanted, seed=next(self.seeds))
            self.going = generation(self.trained, prompt or self.trained.start, wanted)
            self.text = TextStream(self.trained.vocabulary, self.stop)
        elif self.text.stopped:
            self.text = TextStream(self.trained.vocabulary, self.stop)
        return self._written(self.going)

    def _written(self, going: Generation) -> Iterator[str]:
        for (id,) in islice(going, self.wanted.length):
            yield self.text.feed(int(id))
            if self.text.stopped:
                return
        yield self.text.pause()
