"""Text generation: read the prompt once, then draw a symbol, feed it back, and draw the next.

    p = softmax(logits / temperature)      temperature 0: always the likeliest (greedy), of equals the first
    top_k   keep the k likeliest           of equals those with the lower id
    top_p   keep the likeliest that together reach top_p, including the one that crosses it
    min_p   keep those with p >= min_p * max p

The filters apply in this order, each to what the one before has left; what is left is scaled to sum to 1. A draw
inverts the cumulative sum at a uniform number: one number decides one symbol, and equal numbers give equal texts.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from src.config.schema import SamplingConfig, errors_in_values
from src.data.vocabulary import TextStream, Vocabulary
from src.errors import UserError
from src.inference.incremental import change_parts, stepper
from src.models.language_model import LanguageModel, State

if TYPE_CHECKING:
    from src.inference.load import TrainedModel

PROMPT_WINDOW = 1024  # steps of the prompt read at once: long enough for fast products, small in memory
NOT_FINITE = "the logits are not finite: the model diverged in training; use an earlier checkpoint"
BELOW_ONE = 1 - 2.0**-52  # the largest uniform number: u * sum must stay below the sum after rounding


def weights_of(logits: np.ndarray, sampling: SamplingConfig) -> np.ndarray:
    """logits (batch, vocab) -> float64 numbers proportional to p, 0 where a filter drops a symbol."""
    if sampling.temperature == 0:
        return (np.arange(logits.shape[1]) == logits.argmax(1)[:, None]).astype(np.float64)
    weights = logits.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        weights -= weights.max(1, keepdims=True)  # first, since logits / temperature may overflow
        if sampling.temperature != 1:
            weights /= sampling.temperature  # may overflow to -inf, and exp(-inf) = 0 is right
    np.exp(weights, out=weights)
    if sampling.top_k is not None or sampling.top_p is not None:
        order = np.argsort(-logits, axis=1, kind="stable")  # a high temperature makes weights equal
        ranked = np.take_along_axis(weights, order, 1)
        if sampling.top_k is not None:
            ranked[:, sampling.top_k :] = 0
        if sampling.top_p is not None:
            likelier = np.cumsum(ranked, 1) - ranked  # the mass before each symbol; 0 for the first
            ranked[likelier >= sampling.top_p * ranked.sum(1, keepdims=True)] = 0
        np.put_along_axis(weights, order, ranked, 1)
    if sampling.min_p is not None:
        weights[weights < sampling.min_p * weights.max(1, keepdims=True)] = 0
    return weights


def draw(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return ids (batch,): of `weights` (batch, vocab) the first with w_0 + ... + w_id > u * sum(w), u in [0, 1)."""
    total = np.cumsum(weights, 1)
    if not (total[:, -1] > 0).all():
        raise UserError(NOT_FINITE)
    if len(total) == 1:  # of one row a binary search is faster than comparing every symbol
        return np.array([total[0].searchsorted(uniform[0] * total[0, -1], "right")])
    return (total <= (uniform * total[:, -1])[:, None]).sum(1)


def generate_ids(
    model: LanguageModel, prompt: np.ndarray, options: SamplingConfig, seeds: Sequence[int], boundary: int | None = None
) -> Iterator[np.ndarray]:
    """Yield ids (batch,) without end, a stream a seed, after a prompt (length,); from zeros after a `boundary`."""
    last, state = read_prompt(model, prompt)
    logits = np.repeat(last[None], len(seeds), axis=0)
    decoder = stepper(model, change_parts(state, lambda part: part.expand(-1, len(seeds), -1)))
    generators = [np.random.default_rng(seed) for seed in seeds]
    while True:
        uniform = np.minimum([generator.random() for generator in generators], BELOW_ONE)
        ids = draw(weights_of(logits, options), uniform)
        yield ids
        if boundary is not None and (ended := ids == boundary).any():
            decoder.restart(ended)
        logits = decoder.step(ids)


def read_prompt(model: LanguageModel, prompt: np.ndarray) -> tuple[np.ndarray, State]:
    """Return the logits (vocab,) of the symbol after a prompt (length,), and the state (layers, 1, hidden)."""
    inputs = torch.from_numpy(prompt.astype(np.int64))[:, None]
    state: State = None
    with torch.inference_mode():
        for window in inputs.split(PROMPT_WINDOW):
            logits, state = model(window, state)
    return logits[-1, 0].numpy(), state


def start(trained: TrainedModel, prompt: str, sampling: SamplingConfig) -> Iterator[np.ndarray]:
    """Return the ids that continue a prompt, as `generate_ids`; a UserError has all errors in prompt and options."""
    errors, vocab_size = list(errors_in_values(sampling, SamplingConfig)), len(trained.vocabulary)
    if sampling.top_k is not None and sampling.top_k > vocab_size:
        errors.append(f"top_k={sampling.top_k}: the vocabulary has {vocab_size} characters; at most that many are kept")
    try:
        ids = trained.ids(prompt, "prompt")
    except UserError as error:
        raise UserError(*errors, *error.messages) if errors else error from None
    if errors:
        raise UserError(*errors)
    boundary = trained.boundary_id
    if boundary is not None:  # in a list only the last, unfinished item counts, from its boundary on
        ids = np.concatenate((np.array([boundary], ids.dtype), ids))
        ids = ids[np.flatnonzero(ids == boundary)[-1] :]
    first = with_seed(sampling).seed or 0
    return generate_ids(trained.model, ids, sampling, range(first, first + sampling.num_samples), boundary)


def with_seed(sampling: SamplingConfig) -> SamplingConfig:
    """Return the options with a seed: a random one if none is given."""
    return replace(sampling, seed=secrets.randbelow(2**31)) if sampling.seed is None else sampling


def generate(trained: TrainedModel, prompt: str, sampling: SamplingConfig) -> Iterator[list[str]]:
    """Yield step by step the new text of each sample, without the prompt. Errors, those of `start`, come at once."""
    ids = start(trained, prompt, sampling)
    return decoded(ids, trained.vocabulary, replace(sampling, stop=trained.in_its_case(sampling.stop or "")))


def decoded(ids: Iterator[np.ndarray], vocabulary: Vocabulary, sampling: SamplingConfig) -> Iterator[list[str]]:
    """Yield the text of `sampling.length` steps of ids (num_samples,), or until the stop text ended all samples."""
    texts = [TextStream(vocabulary, sampling.stop) for _ in range(sampling.num_samples)]
    for step in islice(ids, sampling.length):
        yield [text.feed(id) for text, id in zip(texts, step.tolist(), strict=True)]
        if all(text.stopped for text in texts):
            break
    yield [text.finish() for text in texts]


class Conversation:
    """One text after another, each with a seed of its own: a prompt begins a new one, an empty one continues it."""

    def __init__(self, trained: TrainedModel, sampling: SamplingConfig) -> None:
        self.trained, self.sampling = trained, sampling
        self.stop = trained.in_its_case(sampling.stop or "")
        self.seeds = count(with_seed(sampling).seed or 0)
        self.ids: Iterator[np.ndarray] | None = None

    def turn(self, prompt: str) -> Iterator[str]:
        """Return the next text, piece by piece; after an error, which comes at once, the last one can be continued."""
        if prompt or self.ids is None:
            self.ids = start(self.trained, prompt or self.trained.start, replace(self.sampling, seed=next(self.seeds)))
            self.text = TextStream(self.trained.vocabulary, self.stop)
        elif self.text.stopped:
            self.text = TextStream(self.trained.vocabulary, self.stop)
        return self._pieces(self.ids)

    def _pieces(self, ids: Iterator[np.ndarray]) -> Iterator[str]:
        for (id,) in islice(ids, self.sampling.length):
            yield self.text.feed(int(id))
            if self.text.stopped:
                return
        yield self.text.pause()
