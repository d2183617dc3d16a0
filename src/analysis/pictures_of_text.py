"""The figures about the text: what every character of a passage costs, and which characters are taken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.analysis import figures as f
from src.analysis.confusions import ConfusionCounts
from src.analysis.labels import short
from src.analysis.lettering import characters_below, glyphs, width

NAT = 1 / math.log(2)  # bits in a nat
COLUMNS = 64  # characters a line of the surprisal picture
FEWEST_LINES = 3  # of that picture: a lower one has no room for the numbers of its colours
MOST_BITS = 8.0  # where its colours end, so that two pictures compare
MOST_PAIRS, MOST_CHARACTERS = 16, 32


def surprisal(step: int, text: Sequence[str], nats: Tensor, source: str) -> Any:
    """Set a passage in type, every character on the colour of what it cost.

    Args:
        step: optimizer steps made.
        text: (time,) symbols, each predicted from those before it.
        nats: (time,) what each cost.
        source: where the passage stands.
    """
    bits = nats.double() * NAT
    rows = max(FEWEST_LINES, -(-len(text) // COLUMNS))
    cells = torch.full((rows * COLUMNS,), math.nan, dtype=torch.float64)
    cells[: len(bits)] = bits
    title = f"What every character cost, after {step:,} steps"
    figure, [[axes]] = f.page(title, 1.15 + 0.26 * rows, [[1]], right=0.92)
    f.heat(axes, cells.view(rows, COLUMNS).numpy(), "bits", 0, MOST_BITS, f.LIGHT_AMOUNTS)
    place = np.arange(len(text))
    glyphs(axes, place % COLUMNS, place // COLUMNS, [short(symbol) for symbol in text], size=9.5, turned=6)
    f.describe(axes, f"{source}: {float(bits.mean()):.2f} bits a character", "", "")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def confusions(step: int, found: ConfusionCounts, symbols: Sequence[str]) -> Any:
    """Draw the commonest mistakes, and what each character costs, the commonest characters first.

    Args:
        step: optimizer steps made.
        found: the counts.
        symbols: of the vocabulary, by id.
    """
    total = int(found.stood.sum())
    title = f"Which characters are taken for which, after {step:,} steps"
    worst = found.worst(MOST_PAIRS)
    names = [f"{short(symbols[true])} → {short(symbols[guess])}" for true, guess, _ in worst]
    room = max([42.0, *(width(name, 8.5) for name in names)]) + 16  # pixels
    figure, [[pairs, costs]] = f.page(title, 4.6, [[1, 1.6]], left=room / (f.WIDTH * f.DPI))

    share = [100 * n / max(1, total) for _, _, n in worst]
    pairs.barh(range(len(worst)), share, color=f.BLUE)
    pairs.set_xlim(0, 1.05 * max(share, default=1.0))
    pairs.set_yticks([])
    pairs.set_ylim(max(len(worst), 1) - 0.4, -0.6)
    glyphs(pairs, -room / 2 / pairs.bbox.width, range(len(worst)), names, 8.5, pairs.get_yaxis_transform())
    right = found.hits() / max(1, total)
    f.describe(pairs, f"true → predicted ({right:.1%} right)", f"% of {total:,} characters", "")

    commonest = found.stood.argsort(descending=True, stable=True)[:MOST_CHARACTERS]
    commonest = commonest[found.stood[commonest] > 0]
    bits = found.per_character()[commonest] * NAT
    bits[~bits.isfinite()] = math.nan  # no bar
    costs.bar(range(len(bits)), bits.tolist(), color=f.ORANGE)
    mean = float(found.nats.sum()) / max(1, total) * NAT
    line = mean if math.isfinite(mean) else math.nan
    costs.axhline(line, color="black", linewidth=0.8, linestyle=":", label=f"mean of all: {mean:.2f}")
    costs.legend(loc="upper left")
    costs.set_xlim(-0.6, max(len(bits), 1) - 0.4)
    costs.set_ylim(0, 1.15 * f.largest([mean, *bits.tolist()], 0.01))
    characters_below(costs, [short(symbols[i]) for i in commonest.tolist()])
    f.describe(costs, "What a character costs", "true character, the commonest first", "bits")
    return figure
