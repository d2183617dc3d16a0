"""A trained model writes: prompts read, samples drawn, ids turned into text as they come."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from src.data.text_stream import TextStream
from src.data.vocabulary import Vocabulary
from src.mistakes import Mistake
from src.models.generation import Generation
from src.training.wanted import Writing

if TYPE_CHECKING:
    from src.training.trained import TrainedModel


def generation(trained: TrainedModel, prompt: str, wanted: Writing) -> Generation:
    """Read the prompt, and return what writes on without end.

    Raises:
        Mistake: everything that is wrong with what is wanted, or with the prompt.
    """
    if wrong := wanted.mistakes(trained.vocabulary):
        raise Mistake(*wrong)
    ids = trained.ids(prompt, "prompt")
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
    return pieces(generation(trained, prompt, wanted), trained.vocabulary, wanted)


def pieces(ids: Iterator[np.ndarray], vocabulary: Vocabulary, wanted: Writing) -> Iterator[list[str]]:
    """As `written`, from a generation that may have written before; `wanted.length` steps, or until all stopped."""
    steps = (step.tolist() for _, step in zip(range(wanted.length), ids, strict=False))
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
