"""From logits to the next character: a distribution, its filters, a draw.

    p = softmax(o / temperature)           temperature 0: the first of the likeliest, always (greedy)
    top_k   only the k likeliest           of equals the one with the lower id
    top_p   only the likeliest that together reach top_p, the one that crosses it included
    min_p   only those with p >= min_p * max p

The filters apply in this order, each to what the one before it left, and what is left is scaled to sum to 1. A draw
inverts the cumulative sum at a uniform number, so that one number decides one character and equal numbers give equal
texts. numpy throughout: at one row an operation of its costs a third of torch's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from src.config.schema import Config
from src.data.vocabulary import Vocabulary
from src.errors import UnknownCharacter, UserError
from src.files import user_path

Number = int | float  # told apart where the tests check types: temperature=0 is as good as 0.0
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """How the next character is chosen; None switches a filter off."""

    temperature: Number = 1.0
    top_k: int | None = None
    top_p: Number | None = None
    min_p: Number | None = None

    def mistakes(self, vocab_size: int | None = None) -> list[str]:
        """What is wrong with it, one text a mistake; `vocab_size`, where it is known, bounds top_k."""
        found = []
        kinds = {"temperature": Real, "top_k": Integral, "top_p": Real, "min_p": Real}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind if name == "temperature" else kind | None):
                found.append(f"{name}={value!r}: expected a {'whole ' if kind is Integral else ''}number")
        if found:
            return found
        if not 0 <= self.temperature < float("inf"):
            found.append(f"temperature={self.temperature}: expected 0 (always the likeliest) or a number above it")
        if self.top_k is not None and self.top_k < 1:
            found.append(f"top_k={self.top_k}: expected at least 1; leave it out to keep every character")
        if self.top_k is not None and vocab_size is not None and self.top_k > vocab_size:
            found.append(
                f"top_k={self.top_k}: the vocabulary has {vocab_size} characters; at most that many can be kept"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            found.append(f"top_p={self.top_p}: expected a share of the probability, 0 < top_p <= 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            found.append(f"min_p={self.min_p}: expected a share of the likeliest one's probability, 0 <= min_p <= 1")
        return found

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """logits (batch, vocab) -> the distribution that is drawn from, (batch, vocab) float64, rows sum to 1."""
        if self.temperature == 0:
            return np.eye(logits.shape[1])[logits.argmax(1)]
        scaled = logits.astype(np.float64)
        scaled -= scaled.max(1, keepdims=True)  # first: o / temperature may be too large for a number
        with np.errstate(over="ignore"):
            kept = self.filtered(np.exp(scaled / self.temperature))
        return kept / kept.sum(1, keepdims=True)

    def filtered(self, weights: np.ndarray) -> np.ndarray:
        """weights (batch, vocab), proportional to p -> the same with 0 where a filter drops a character."""
        if self.top_k is not None or self.top_p is not None:
            order = np.argsort(-weights, axis=1, kind="stable")
            ranked = np.take_along_axis(weights, order, 1)
            if self.top_k is not None:
                ranked[:, self.top_k :] = 0
            if self.top_p is not None:
                before = np.cumsum(ranked, 1) - ranked  # the mass of those likelier; the first has none before it
                ranked[before >= self.top_p * ranked.sum(1, keepdims=True)] = 0
            weights = np.empty_like(weights)
            np.put_along_axis(weights, order, ranked, 1)
        if self.min_p is not None:
            weights = np.where(weights >= self.min_p * weights.max(1, keepdims=True), weights, 0)
        return weights

    def drawer(self) -> Draw:
        """The function (logits (batch, vocab), uniform (batch,)) -> ids (batch,): `draw(probabilities(logits), u)`.

        What need not be done is left out: a sum of 1 is not needed to invert a cumulative sum.
        """
        if self.temperature == 0:
            return lambda logits, uniform: logits.argmax(1)
        filters = any(word is not None for word in (self.top_k, self.top_p, self.min_p))
        temperature = self.temperature

        def draw_one_each(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
            scaled = logits.astype(np.float64)
            scaled -= scaled.max(1, keepdims=True)
            if temperature != 1:
                with np.errstate(over="ignore"):  # -inf, of which exp makes the 0 that is meant
                    scaled /= temperature
            np.exp(scaled, out=scaled)
            return draw(self.filtered(scaled) if filters else scaled, uniform)

        return draw_one_each


def draw(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """The ids (batch,) whose share of `weights` (batch, vocab) holds `uniform` (batch,), numbers in [0, 1).

    id = the first with w_0 + ... + w_id > u * sum(w), so a character of weight 0 is never drawn.
    """
    total = np.cumsum(weights, 1)
    if len(total) == 1:  # a binary search by its own is faster than one comparison a character
        return np.array([total[0].searchsorted(uniform[0] * total[0, -1], "right")])
    return (total <= (uniform * total[:, -1])[:, None]).sum(1)


# ---- What may be asked of a model, and what is wrong with it: known before torch is imported.

PRECISIONS = ("32-true", "64-true")  # trainer.precision's words for float32 and float64
EXPORTED = {"onnx": "step.onnx", "torch": "step.pt2", "safetensors": "weights.safetensors"}  # what they are called


@dataclass(frozen=True)
class Writing:
    """What is wanted: how many symbols, how they are chosen, from which seed, how many texts, where they end."""

    length: int = 200
    choice: Choice = field(default_factory=Choice)
    seed: int | None = 0
    num_samples: int = 1
    stop: str | None = None

    def mistakes(self, vocab_size: int | None = None) -> list[str]:
        """What is wrong with it, one text a mistake; `vocab_size`, where it is known, bounds top_k."""
        found = self.choice.mistakes(vocab_size)
        for name, least in (("length", "at least 1"), ("num_samples", "at least 1"), ("seed", "0 or more, or null")):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                if not (name == "seed" and value is None):
                    found.append(f"{name}={value!r}: expected a whole number")
            elif value < (name != "seed"):
                found.append(f"{name}={value}: expected {least}")
        stop: Any = self.stop
        if not isinstance(stop, str | None):
            found.append(f"stop={stop!r}: expected a text")
        elif stop == "":
            found.append("stop is empty: expected the text before which a sample ends; leave it out for none")
        return found


def check_prompt(samples: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Hold the prompt of callbacks.text_samples to the vocabulary.

    Raises:
        UserError: it has characters that no text of the model can have.
    """
    if not (samples["enabled"] and samples["prompt"]):
        return
    try:
        vocabulary.encode(samples["prompt"])
    except UnknownCharacter as error:
        raise UserError(f"callbacks.text_samples.prompt={samples['prompt']!r}: {error}") from error


def mistakes_in_output(format: str, output: str | None) -> list[str]:
    """What is wrong with the file that an export is to write; None is one of the program's own choice."""
    if output is None:
        return []
    if output == "":
        return ["output is empty: expected a file to write; leave it out for export/ in the run's folder"]
    target = user_path(output)
    if os.path.isdir(target):  # False of a name too long, where pathlib raises
        return [f"output={output} is a folder; name a file in it, {target / EXPORTED[format]} for one"]
    found = [] if os.path.isdir(target.parent) else [f"output={output}: there is no folder {target.parent}"]
    if format == "safetensors" and target.suffix != ".safetensors":
        named = Path(output).with_suffix(".safetensors")
        found.append(f"output={output}: weights are known by their suffix when they are read; output={named} for one")
    return found


def check_size(model: Mapping[str, Any], vocab_size: int) -> None:
    """Hold a network to the memory of this machine, which has to hold its weights and their gradients, 4 bytes each.

    Raises:
        UserError: it is larger, and the system would end the run in the middle without a word.
    """
    H, L = model["hidden_size"], model["num_layers"]
    numbers = H * (vocab_size + H * (2 * L - 1)) * {"lstm": 4, "gru": 3}.get(model["name"], 1)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 8 * numbers > there:
        raise UserError(
            f"model.hidden_size={H} model.num_layers={L}: {numbers:,} weights and their gradients take "
            f"{8 * numbers / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}"
        )


def check_monitor(config: Config, splits: Container[str]) -> None:
    """Hold the monitored metric to the splits of the text.

    Raises:
        UserError: it is one of `val`, the text has none, and the user asked for it or for what cannot do without it.
    """
    monitor, data = config.checkpoint.monitor, config.data.name
    if "val" in splits or not monitor.startswith("val/"):
        return
    needs = ["early_stopping.enabled=true"] if config.early_stopping.enabled else []
    needs += ["scheduler=plateau"] if config.scheduler.name == "plateau" else []
    if needs or data == "hello" or monitor != "val/cross_entropy":  # which is the default of every other text
        told = f"{' and '.join(needs)} with " if needs else ""
        raise UserError(
            f"{told}checkpoint.monitor={monitor}: the text of data={data} has no val split; "
            f"expected a metric of training, checkpoint.monitor=train/{monitor.removeprefix('val/')}"
        )
