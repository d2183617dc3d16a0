"""Figures about the text: what each character of a passage costs, and which characters are confused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.diagnostics import drawing
from src.diagnostics.diagnostic import Diagnostic, EvalView, Reading
from src.models.language_model import State

LENGTH, COLUMNS = 512, 64  # characters of the surprisal figure, and of one of its lines
FEWEST_LINES = 3  # fewer have no room for the numbers of the colour bar
MOST_BITS = 8.0  # where the colours end, so that two figures can be compared
# White at zero and light throughout: black letters can be read on all of it.
LIGHT_AMOUNTS = ("#ffffff", "#d9ecf7", "#9ccbe5", "#f6c36a", "#e8833a")
MOST_READ = 16_384  # characters that are counted for the confusions
MOST_PAIRS, MOST_CHARACTERS = 16, 32  # bars


class Surprisal(Diagnostic):
    """Draw `text/surprisal`: the beginning of the text that is validated on, each character predicted from the past."""

    name = "surprisal"

    def draw(self, view: EvalView) -> dict[str, Any]:
        """Read the passage and draw."""
        ids: list[int] = []
        nats = []
        state: State = None
        for window in view.passage(LENGTH):
            outcome, state = view.read(window, None if window.starts else state)
            ids += window.targets[:, 0].tolist()
            nats.append(outcome.loss.losses[:, 0].cpu())
        text = [view.symbols[i] for i in ids]
        return {"text/surprisal": surprisal(view.step, text, torch.cat(nats), f"the beginning of {view.split}")}


def surprisal(step: int, text: Sequence[str], nats: Tensor, source: str) -> Any:
    """Draw a passage, every character on the colour of what it cost.

    text: (time,) symbols, each predicted from those before it; nats: (time,) what each cost; source: of the passage.
    """
    from matplotlib.colors import LinearSegmentedColormap

    bits = nats.double() * drawing.NAT
    rows = max(FEWEST_LINES, -(-len(text) // COLUMNS))
    cells = np.full(rows * COLUMNS, math.nan)
    cells[: len(bits)] = drawing.finite(bits)
    figure, [[axes]] = drawing.page(f"What every character cost, after {step:,} steps", 1.15 + 0.26 * rows, [1])
    colours = LinearSegmentedColormap.from_list("light", LIGHT_AMOUNTS)
    image = drawing.heat(axes, cells.reshape(rows, COLUMNS), cmap=colours, vmin=0, vmax=MOST_BITS)
    drawing.colour_bar(image, axes, "bits")
    for i, shown in enumerate(map(drawing.short, text)):
        look: dict[str, Any] = {"fontsize": 9.5} if len(shown) <= 2 else {"fontsize": 6, "rotation": 90}
        look |= {"ha": "center", "va": "center", "parse_math": False, "in_layout": False}
        axes.text(i % COLUMNS, i // COLUMNS, shown, **look)
    axes.set(title=f"{source}: {float(bits.mean()):.2f} bits per character", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return figure


class ConfusionCounts(NamedTuple):
    """Counts over a text. Ids are those of the vocabulary.

    pairs: (found, 2) true and predicted id of each pair that came, the most frequent first: of V * V a text has few.
    times: (found,) how often it came.
    nats: (vocab,) the sum of what the characters of each kind cost.
    occurrences: (vocab,) how often each was the true one.
    """

    pairs: Tensor
    times: Tensor
    nats: Tensor
    occurrences: Tensor

    @classmethod
    def of(cls, readings: Sequence[Reading], vocab_size: int) -> ConfusionCounts:
        """Count; positions without a target are left out."""
        true, guess, nats = (
            torch.cat([part.flatten() for part in parts]).cpu() for parts in zip(*readings, strict=True)
        )
        real = true >= 0
        true, guess, nats = true[real], guess[real], nats[real]
        pairs, times = torch.unique(true * vocab_size + guess, return_counts=True)
        order = times.argsort(descending=True, stable=True)
        pairs = torch.stack([pairs // vocab_size, pairs % vocab_size], 1)
        per_kind = torch.bincount(true, nats.double(), vocab_size)
        return cls(pairs[order], times[order], per_kind, torch.bincount(true, minlength=vocab_size))

    def hits(self) -> int:
        """Return how often the first guess was right."""
        return int(self.times[self.pairs[:, 0] == self.pairs[:, 1]].sum())

    def worst(self, most: int) -> list[tuple[int, int, int]]:
        """Return the most frequent errors as (true, predicted, how often)."""
        wrong = self.pairs[:, 0] != self.pairs[:, 1]
        rows = torch.cat([self.pairs, self.times[:, None]], 1)[wrong][:most]
        return [(true, guess, times) for true, guess, times in rows.tolist()]

    def per_character(self) -> Tensor:
        """Return the mean nats of each character, (vocab,); NaN if it never occurred."""
        return self.nats / self.occurrences


class Confusions(Diagnostic):
    """Draw `text/confusions`, counted over the first windows of the validation."""

    name = "confusions"

    def draw(self, view: EvalView) -> dict[str, Any]:
        """Count and draw."""
        counts = ConfusionCounts.of(view.readings(MOST_READ), len(view.symbols))
        return {"text/confusions": confusions(view.step, counts, view.symbols)}


def confusions(step: int, counts: ConfusionCounts, symbols: Sequence[str]) -> Any:
    """Draw the most frequent errors, and what each character costs, the most frequent characters first."""
    title = f"Which characters are taken for which, after {step:,} steps"
    figure, [[pairs, costs]] = drawing.page(title, 4.6, [2])
    total = max(1, int(counts.occurrences.sum()))
    worst = counts.worst(MOST_PAIRS)
    names = [f"{drawing.short(symbols[true])} → {drawing.short(symbols[guess])}" for true, guess, _ in worst]
    pairs.barh(range(len(worst)), [100 * n / total for _, _, n in worst], color=drawing.BLUE)
    pairs.set_yticks(range(len(worst)), names, parse_math=False)
    pairs.set_ylim(max(len(worst), 1) - 0.4, -0.6)
    pairs.set(title=f"true → predicted ({counts.hits() / total:.1%} right)", xlabel=f"% of {total:,} characters")

    frequent = counts.occurrences.argsort(descending=True, stable=True)[:MOST_CHARACTERS]
    frequent = frequent[counts.occurrences[frequent] > 0]
    bits = drawing.finite(counts.per_character()[frequent] * drawing.NAT)
    mean = float(counts.nats.sum()) / total * drawing.NAT
    costs.bar(range(len(bits)), bits, color=drawing.ORANGE)
    costs.axhline(
        float(drawing.finite(mean)), color="black", linewidth=0.8, linestyle=":", label=f"mean of all: {mean:.2f}"
    )
    costs.legend(loc="upper left")
    costs.set_xlim(-0.6, max(len(bits), 1) - 0.4)
    costs.set_ylim(0, 1.15 * drawing.largest([mean, *bits], 0.01))
    drawing.characters_below(costs, [drawing.short(symbols[i]) for i in frequent.tolist()])
    costs.set(title="What a character costs", xlabel="true character, the most frequent first", ylabel="bits")
    return figure
