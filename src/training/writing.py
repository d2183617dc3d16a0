"""A trained model writes: prompts read, samples drawn, ids turned into text as they come."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from src.data.text_stream import TextStream
from src.data.vocabulary import Vocabulary
from src.mistakes import Mistake
from src.models.generation import Generation
from src.training.wanted import Writing

if TYPE_CHECKING:
    from src.training.trained import TrainedModel

log = logging.getLogger(__name__)


def generation(trained: TrainedModel, prompt: str, wanted: Writing) -> Generation:
    """Read the prompt, and return what writes on without end.

    Raises:
        Mistake: everything that is wrong with what is wanted, or with the prompt.
    """
    wrong = wanted.mistakes(len(trained.vocabulary))
    try:
        ids = trained.ids(prompt, "prompt")
    except Mistake as mistake:
        raise Mistake(*wrong, *mistake.messages) if wrong else mistake from None
    if wrong:
        raise Mistake(*wrong)
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
            Mistake: what is wrong with the prompt, at once; the text before it can still be gone on with.
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
