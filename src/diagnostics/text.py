"""The text: the bits of each character, by text and by window position; confusions; generated samples."""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.config.schema import SamplingConfig, TextSamplesConfig
from src.data.batching import LineSplit, PairSplit
from src.diagnostics import drawing
from src.diagnostics.diagnostic import Diagnostic, EvalView, Reading
from src.diagnostics.loggers import log_text, take_figures
from src.errors import UserError
from src.inference.generate import generate_ids
from src.models.language_model import LanguageModel

log = logging.getLogger(__name__)
LENGTH, COLUMNS = 512, 64  # characters of the surprisal figure, and of one of its lines
MOST_BITS = 16.0  # where the colours end: the same in every figure, and pale enough below 8 bits to be read on
COUNTED = 16_384  # characters that are counted for the confusions
READ = 8_192  # characters for the loss by position: a quarter of a bit of noise at each, the same in both curves
MOST_PAIRS, MOST_CHARACTERS = 16, 32  # bars


class Surprisal(Diagnostic):
    """Draw `text/surprisal`: the beginning of the text that is validated on, each character predicted from the past."""

    name = "surprisal"

    def draw(self, view: EvalView) -> dict[str, Any]:
        text, nats, state = [], [], None
        for window in view.passage(LENGTH):
            loss, state = view.read(window, None if window.starts else state)
            targets, real = window.targets[:, 0], window.targets[:, 0] >= 0
            read_next = torch.cat([window.inputs[1:, 0], window.inputs[-1:, 0]])
            text += [view.symbols[i] for i in torch.where(real, targets, read_next).tolist()]
            nats.append(torch.where(real, loss.losses[:, 0].cpu(), math.nan))
        return {"text/surprisal": surprisal(view.step, text, torch.cat(nats), f"the beginning of {view.split}")}


def surprisal(step: int, text: Sequence[str], nats: Tensor, source: str) -> Any:
    """Draw the symbols of a text (time,) from `source`, each coloured by its loss, nats (time,)."""
    bits = nats.double() * drawing.NAT
    rows = max(3, -(-len(text) // COLUMNS))  # fewer have no room for the colour bar
    cells = np.full(rows * COLUMNS, math.nan)
    cells[: len(bits)] = drawing.finite(bits)
    figure, [[axes]] = drawing.page(f"What every character cost, after {step:,} steps", 1.15 + 0.26 * rows, [1])
    image = drawing.heat(axes, cells.reshape(rows, COLUMNS), cmap="Oranges", vmin=0, vmax=MOST_BITS)
    drawing.colour_bar(image, axes, "bits")
    for i, shown in enumerate(map(drawing.short, text)):
        look: dict[str, Any] = {"fontsize": 9.5} if len(shown) <= 2 else {"fontsize": 6, "rotation": 90}
        look |= {"ha": "center", "va": "center", "parse_math": False, "in_layout": False}
        axes.text(i % COLUMNS, i // COLUMNS, shown, **look)
    axes.set(title=f"{source}: {float(bits.nanmean()):.2f} bits per character", xticks=[], yticks=[])
    return figure


class Confusions(Diagnostic):
    """Draw `text/confusions`, counted over the first windows of the validation."""

    name = "confusions"

    def draw(self, view: EvalView) -> dict[str, Any]:
        return {"text/confusions": confusions(view.step, view.readings(COUNTED), view.symbols)}


def count_confusions(readings: Sequence[Reading], vocab_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Count true and predicted characters; positions without a target are left out.

    Return pairs (found, 2) of true and predicted id, the most frequent first, and their counts (found,); then nats and
    counts of each true character (vocab,).
    """
    tensors = zip(*(one[:3] for one in readings), strict=True)
    true, guess, nats = (torch.cat([part.flatten() for part in parts]) for parts in tensors)
    real = true >= 0
    true, guess, nats = true[real], guess[real], nats[real]
    pairs, times = torch.stack([true, guess], 1).unique(dim=0, return_counts=True)
    order = times.argsort(descending=True, stable=True)
    occurrences = torch.bincount(true, minlength=vocab_size)
    return pairs[order], times[order], torch.bincount(true, nats.double(), vocab_size), occurrences


def confusions(step: int, readings: Sequence[Reading], symbols: Sequence[str]) -> Any:
    """Draw the most frequent errors, and what each character costs, the most frequent characters first."""
    pairs, times, nats, occurrences = count_confusions(readings, len(symbols))
    figure, [[errors, costs]] = drawing.page(f"Which characters are taken for which, after {step:,} steps", 4.6, [2])
    total, wrong = max(1, int(occurrences.sum())), pairs[:, 0] != pairs[:, 1]
    right = 1 - int(times[wrong].sum()) / total
    worst, shares = pairs[wrong][:MOST_PAIRS].tolist(), (100 * times[wrong][:MOST_PAIRS] / total).numpy()
    names = [" → ".join(drawing.short(symbols[i]) for i in pair) for pair in worst]
    errors.barh(range(len(names)), shares, color=drawing.BLUE)
    errors.set_yticks(range(len(names)), names, parse_math=False)
    errors.invert_yaxis()
    errors.set(title=f"true → predicted ({right:.1%} right)", xlabel=f"% of {total:,} characters")

    frequent = occurrences.argsort(descending=True, stable=True)[:MOST_CHARACTERS]
    frequent = frequent[occurrences[frequent] > 0]
    average = mean(nats, occurrences) * drawing.NAT
    costs.bar(range(len(frequent)), drawing.finite(nats[frequent] / occurrences[frequent] * drawing.NAT))
    drawing.characters_below(costs, [drawing.short(symbols[i]) for i in frequent.tolist()])
    costs.set(title=f"What a character costs ({average:.2f} on average)", ylabel="bits")
    costs.set(xlabel="true character, the most frequent first")
    return figure


class LossByPosition(Diagnostic):
    """Draw `window/loss_by_position`, and write `window/cross_entropy_carried` and `_fresh` as curves."""

    name, measures = "loss_by_position", True

    def look(self, view: EvalView) -> dict[str, float]:
        carried, fresh = self._sums(view)
        return {"window/cross_entropy_carried": mean(*carried), "window/cross_entropy_fresh": mean(*fresh)}

    def draw(self, view: EvalView) -> dict[str, Any]:
        return {"window/loss_by_position": loss_by_position(view.step, *self._sums(view))}

    def _sums(self, view: EvalView) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        carried, fresh = (sums_by_position(view.readings(READ, carry)) for carry in (True, False))
        return carried, fresh


def sums_by_position(readings: Sequence[Reading]) -> tuple[Tensor, Tensor]:
    """Return nats and number of characters by position in the window, (time,) float64; windows may differ in length."""
    time = max(len(reading.targets) - reading.lead for reading in readings)
    nats, characters = torch.zeros(2, time, dtype=torch.float64)
    for targets, _, losses, lead in readings:
        at = (torch.arange(len(targets)) - lead) % time  # the warm-up lies in the windows before it
        nats.index_add_(0, at, losses.double().sum(1))
        characters.index_add_(0, at, (targets >= 0).sum(1).double())
    return nats, characters


def mean(nats: Tensor, characters: Tensor) -> float:
    """Return nats per character over all positions."""
    return float(nats.sum() / characters.sum().clamp(min=1))


def loss_by_position(step: int, carried: tuple[Tensor, Tensor], fresh: tuple[Tensor, Tensor]) -> Any:
    """Draw what a character costs by its position, for two `sums_by_position`."""
    figure, [[axes]] = drawing.page(f"Loss by position in the window, after {step:,} steps", 4.2, [1])
    for (nats, characters), colour, name in (
        (fresh, drawing.VERMILION, "fresh: every window starts from a zero state"),
        (carried, drawing.BLUE, "carried: the state of the window before"),
    ):
        bits = drawing.finite(nats / characters * drawing.NAT)  # 0 / 0 where no position has a target: no point
        text = f"{name}; {mean(nats, characters) * drawing.NAT:.2f} on average"
        axes.plot(range(1, len(bits) + 1), bits, "o-", markersize=3, color=colour, label=text)
    axes.set(xlabel="step t of the window", ylabel="bits per character")
    drawing.whole_numbers(axes, most=9)
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    return figure


class TextSamples(Diagnostic):
    """Write `samples/temperature_<x>` at every moment, shown as it is; nothing if the logits are not finite.

    With the same random numbers at every moment, so that only the network differs. It goes on from the prompt; without
    one from a newline (in a list the boundary of its items, else the training text's first character).
    """

    name = "text_samples"

    def __init__(self, config: TextSamplesConfig) -> None:
        super().__init__(config)
        self.config = config

    def applies_to(self, view: EvalView) -> bool:
        return not isinstance(view.data.corpus.splits["train"], PairSplit)  # it does not predict the next character

    def look(self, view: EvalView) -> dict[str, float]:
        if view.step == 0 or not take_figures(view.trainer):
            return {}  # noise, whatever the model; or nobody reads it
        model = view.model
        first = next(model.parameters())
        if first.device.type != "cpu" or first.dtype not in (torch.float32, torch.float64):
            model = copy.deepcopy(model).cpu().float()  # characters one by one are fastest on a CPU
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # of a network that diverges
                texts = [self._sample(view, model, temperature) for temperature in self.config.temperatures]
        except UserError:
            log.info("at step %d there are no samples: the logits are not finite", view.step)
            return {}
        for temperature, text in zip(self.config.temperatures, texts, strict=True):
            tag, whole = f"samples/temperature_{float(temperature)}", f"{self.config.prompt or ''}{text}"
            log_text(view.trainer, tag, whole, view.step)
        return {}

    def _sample(self, view: EvalView, model: LanguageModel, temperature: float) -> str:
        """Return a text of `length` characters; UserError if the network has diverged."""
        split, vocabulary = view.data.corpus.splits["train"], view.data.corpus.vocabulary
        boundary = split.boundary if isinstance(split, LineSplit) else None  # each item begins from a zero state
        if self.config.prompt:
            start = vocabulary.encode(self.config.prompt)
        elif boundary is not None:
            start = np.array([boundary])
        else:
            start = np.array([vocabulary.symbols.index("\n") if "\n" in vocabulary.symbols else int(split.ids[0])])
        steps = generate_ids(model, start, SamplingConfig(temperature), [0], boundary)
        return vocabulary.decode([int(step[0]) for step in itertools.islice(steps, self.config.length)])
