"""What talks to matplotlib, with `lettering.py` beside it for texts; imported when the first figure is drawn.

A figure is a page of axes, 800 pixels wide, made without pyplot: nothing keeps it alive once its PNG is taken. Colours
can be told apart by colour-blind readers: Okabe and Ito's for lines, viridis for amounts, purple to orange for signs.
Logarithmic scales are drawn as exponents on a plain axis and colour bars as pictures: matplotlib's own take three times
as long, and figures are drawn while a network waits. A network that has diverged is drawn too: no limit of an axis is
ever taken from what is not finite.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Transform
from torch import Tensor

from src.diagnostics.confusions import ConfusionCounts

WIDTH, DPI = 8.0, 100  # inches and dots an inch: 800 pixels
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
LINES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
PALE = "#b5b5b5"
SIGNS, AMOUNTS = "PuOr", "viridis"
# White at zero and light throughout: black letters can be read on all of it.
LIGHT_AMOUNTS = LinearSegmentedColormap.from_list("light", ["#ffffff", "#d9ecf7", "#9ccbe5", "#f6c36a", "#e8833a"])
matplotlib.rcParams.update(
    {
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.labelsize": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.fontsize": 8.0,
        "legend.frameon": False,
        "xtick.labelsize": 8.0,
        "ytick.labelsize": 8.0,
        "lines.linewidth": 1.5,
    }
)


def page(
    title: str,
    height: float,
    rows: Sequence[Sequence[float]],
    heights: Sequence[float] | None = None,
    right: float = 0.985,
    left: float = 0.085,
    subtitle: str = "",
) -> Any:
    """Return a figure and its axes, row by row.

    Args:
        title: stands over everything.
        height: in inches.
        rows: for each row the relative widths of its axes.
        heights: the relative heights of the rows.
        right, left: where the axes end and begin, as shares of the width; colour bars and labels need room beyond.
        subtitle: a line under the title.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.08 / height, title, va="top", fontsize=11, fontweight="bold")
    if subtitle:
        figure.text(0.012, 1 - 0.3 / height, subtitle, va="top", fontsize=8)
    top, bottom, gap = (0.78 if subtitle else 0.6), 0.52, 0.78  # inches: titles, the last labels, between two rows
    each = (height - top - bottom - gap * (len(rows) - 1)) / len(rows)
    grid = figure.add_gridspec(
        len(rows), 1, height_ratios=heights, left=left, right=right, bottom=bottom / height, top=1 - top / height,
        hspace=gap / each,
    )  # fmt: skip
    axes = []
    for row, widths in enumerate(rows):
        columns = grid[row].subgridspec(1, len(widths), width_ratios=list(widths), wspace=0.12 + 0.1 * len(widths))
        axes.append([figure.add_subplot(columns[column]) for column in range(len(widths))])
    return figure, axes


def png(figure: Figure) -> bytes:
    """Return the figure as PNG and let it go."""
    with io.BytesIO() as file:
        figure.canvas.print_png(file, pil_kwargs={"compress_level": 3})  # type: ignore[attr-defined]
        figure.clear()
        return file.getvalue()


def describe(axes: Axes, title: str, x: str, y: str) -> None:
    """Say what an axes shows, and what its axes are, with units."""
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def whole_numbers(axes: Axes, which: str = "x", most: int = 5) -> None:
    """Put ticks on whole numbers only."""
    getattr(axes, f"{which}axis").set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def wrapped(rows: Sequence[Sequence[Axes]], count: int) -> list[Axes]:
    """Return the first `count` axes of some rows and remove the others: the places of the last row that stay free."""
    axes = [each for row in rows for each in row]
    for spare in axes[count:]:
        spare.remove()
    return axes[:count]


def largest(values: Any, least: float) -> float:
    """Return the largest modulus among those values that are finite, `least` where none is larger."""
    moduli = np.abs(np.asarray(values))
    return float(np.max(moduli, initial=least, where=np.isfinite(moduli)))


def exponents(values: Any, decades: float = 8.0) -> np.ndarray:
    """Return log10 of the values, for a logarithmic scale; not a number for zero, infinity and what is far below."""
    values = np.asarray(values, dtype=np.float64)
    good = np.isfinite(values) & (values > 0)
    logs = np.full(values.shape, np.nan)
    logs[good] = np.log10(values[good])
    if good.any():
        logs[logs < np.nanmax(logs) - decades] = np.nan
    return logs


def powers_of_ten(axes: Axes, low: float, high: float) -> None:
    """Label a y axis of exponents as the numbers that they stand for."""
    places = decades_between(low, high)
    axes.set_yticks(places, [power_of_ten(place) for place in places])


def power_of_ten(exponent: float) -> str:
    """Return 10 to some exponent, short: 1e-3, 2e-3, 2.3e-3."""
    whole = math.floor(exponent + 1e-9)
    mantissa = 10 ** (exponent - whole)
    return f"{mantissa:.{0 if abs(mantissa - round(mantissa)) < 1e-6 else 1}f}e{whole}"


def decades_between(low: float, high: float, most: int = 5) -> list[float]:
    """Return a few exponents from low to high: whole ones; in a short range those of 1, 2, 5, 10, ...; or both ends."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return []
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    if last - first >= 2:
        return [float(place) for place in range(first, last + 1, max(1, -(-(last - first + 1) // most)))]
    for digits in ((1, 2, 5), range(1, 10)):
        fine = [whole + math.log10(digit) for whole in range(first - 1, last + 1) for digit in digits]
        fine = [place for place in fine if low - 1e-9 <= place <= high + 1e-9]
        if len(fine) > 1:
            return fine
    return sorted({low, high})


def heat(
    axes: Axes, values: Any, unit: str, low: float, high: float, colours: Any = AMOUNTS, log: bool = False,
    upside: bool = False,
) -> None:  # fmt: skip
    """Draw (rows, columns) as colours, with a bar that says what they mean; what is not a number stays grey.

    With `log` the values and limits are exponents of ten. Row 0 is at the top; with `upside` at the bottom.
    """
    look = {"aspect": "auto", "interpolation": "nearest", "cmap": colours, "vmin": low, "vmax": high}
    axes.imshow(values, origin="lower" if upside else "upper", **look)
    axes.set_facecolor("#dddddd")
    bar: Axes = axes.inset_axes((1.012, 0, 0.014, 1))
    bar.imshow(np.linspace(low, high, 128)[:, None], extent=(0, 1, low, high), origin="lower", **look)
    bar.set_xticks([])
    bar.yaxis.tick_right()
    bar.yaxis.set_label_position("right")
    bar.set_ylabel(unit)
    if log:
        powers_of_ten(bar, low, high)
    else:
        bar.yaxis.set_major_locator(MaxNLocator(5))
    for spine in bar.spines.values():
        spine.set_visible(False)


# ---- How a character is shown where it stands alone: on an axis, in a table, beside a point. Every label has ink.

SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "⇤"}
# Printable by Unicode's book, and yet no ink: fillers, the empty braille pattern, selectors of a glyph's variant.
BLANK = frozenset((0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0x180B, 0x1810),
                   *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))  # fmt: skip


def label(symbol: str) -> str:
    """Return a printable form of one symbol: a blank as ␣, a newline as ↵, an invisible one by its number."""
    if symbol in SHOWN:
        return SHOWN[symbol]
    if len(symbol) != 1:
        return symbol  # a byte as \\xNN, <unknown>: printable already
    if ord(symbol) in BLANK or not symbol.isprintable():
        return f"U+{ord(symbol):04X}"
    return "◌" + symbol if unicodedata.category(symbol).startswith("M") else symbol


def labels(symbols: Iterable[str]) -> list[str]:
    """Return the labels of several."""
    return [label(symbol) for symbol in symbols]


def short(symbol: str) -> str:
    """Return the label where there is little room: an invisible character by its bare number, <unknown> as <?>."""
    return "<?>" if len(symbol) > 4 else label(symbol).removeprefix("U+")


# ---- Short texts on a figure, characters of any corpus, drawn as one collection of glyphs: a third of ...

MONO, BEHIND = "DejaVu Sans Mono", "DejaVu Sans"  # come with matplotlib
# Where one of these is installed, Chinese, Japanese and Korean characters are drawn; elsewhere their codes are.
WIDE = ("Noto Sans Mono CJK SC", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "Droid Sans Fallback")
ADVANCE = 0.602  # of a character of MONO, in units of its size


def glyphs(
    axes: Axes, x: Any, y: Any, texts: Sequence[str], size: float, where: Transform | None = None, turned: float = 0.0
) -> None:
    """Draw short texts centred on points.

    Args:
        axes: to draw on.
        x, y: of the points.
        texts: one a point.
        size: in points.
        where: the coordinates of the points, those of the data if None.
        turned: the size of texts of more than two characters, which then run upwards; 0: as the others.
    """
    paths = []
    for text in map(drawable, texts):
        turns = bool(turned) and len(text) > 2
        paths.append(_glyph(text, turned if turns else size, turns))
    collection = PathCollection(
        paths, offsets=np.column_stack([np.broadcast_to(x, len(texts)), np.broadcast_to(y, len(texts))]),
        offset_transform=where or axes.transData, facecolors="black", linewidths=0, clip_on=False,
    )  # fmt: skip
    collection.set_transform(Affine2D().scale(DPI / 72))
    axes.add_collection(collection, autolim=False)


def characters_below(axes: Axes, texts: Sequence[str], size: float = 7.5) -> None:
    """Label the places 0, 1, 2, ... of the x axis with characters of a text; codes hang upright below them."""
    axes.set_xticks([])
    hangs = [width(text, 0.85 * size) if len(drawable(text)) > 2 else 0.72 * size * DPI / 72 for text in texts]
    axes.xaxis.labelpad = 11 + 72 / DPI * max(hangs, default=0)
    y = -(3 + np.array(hangs) / 2) / (axes.bbox.height or 1)
    glyphs(axes, range(len(texts)), y, texts, size, axes.get_xaxis_transform(), turned=0.85 * size)


def width(text: str, size: float) -> float:
    """Return how wide a text is drawn, in pixels."""
    columns = sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in drawable(text)
    )
    return columns * ADVANCE * size * DPI / 72


@cache
def _glyph(text: str, size: float, turns: bool) -> Any:
    """The outline of a text around its middle; lines stand on a common height."""
    path = TextPath((0, 0), text, size=size, prop=font_manager.FontProperties(family=families()))
    box = path.get_extents() if len(path.vertices) else None
    middle = (box.x0 + box.x1) / 2 if box is not None else 0.0
    centred = Affine2D().translate(-middle, -0.36 * size)
    return path.transformed(centred.rotate_deg(90) if turns else centred)


@cache
def families() -> tuple[str, ...]:
    """Return the fonts in which texts are set: one of even width, and behind it those with many characters."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (MONO, *[name for name in WIDE if name in installed][:1], BEHIND)


@cache
def drawable(text: str) -> str:
    """Return the text with its code in the place of each character that none of the fonts has."""
    if text.isascii():
        return text
    return "".join(char if ord(char) in _known() else f"{ord(char):04X}" for char in text)


@cache
def _known() -> frozenset[int]:
    fonts = [FT2Font(font_manager.findfont(font_manager.FontProperties(family=name))) for name in families()]
    return frozenset(code for font in fonts for code in font.get_charmap())


# ---- The figures about the network: where in the window it is bad, how far back a gradient reaches, W, the ...

NAT = 1 / math.log(2)  # bits in a nat
ACROSS = 3  # layers side by side; more of them go into further rows
MOST_UNITS = 64  # rows of a heat map that are still to be told apart


def loss_by_position(step: int, carried: Tensor, fresh: Tensor, overall: tuple[float, float]) -> Any:
    """Draw what a character costs by its place in the window.

    Args:
        step: optimizer steps made.
        carried: (time,) nats, the state carried from the window before.
        fresh: (time,) nats, every window from a zero state.
        overall: nats a character of both, over all places.
    """
    figure, [[axes]] = page(f"Loss by position in the window, after {step:,} steps", 4.2, [[1]])
    for values, mean, colour, name in (
        (fresh, overall[1], VERMILION, "fresh: every window starts from a zero state"),
        (carried, overall[0], BLUE, "carried: the state of the window before"),
    ):
        places = range(1, len(values) + 1)
        axes.plot(places, (values * NAT).tolist(), color=colour, label=f"{name}; {mean * NAT:.2f} on average",
                  marker="o", markersize=3)  # fmt: skip
        axes.axhline(mean * NAT, color=colour, linewidth=0.8, linestyle=":")
    describe(axes, "", "step t of the window", "bits a character")
    whole_numbers(axes, most=9)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0.5, max(len(carried), len(fresh)) + 0.5)
    axes.legend(loc="best")
    return figure


def gradient_by_lag(steps: Sequence[int], lags: Tensor, window: Tensor, words: str = "") -> Any:
    """Draw how far back an error reaches.

    Args:
        steps: (points,) optimizer steps at which it was measured, the last one is now.
        lags: (points, layers, time) |dL_T/dz_(T-k)|, entry k is lag k.
        window: (layers, time) |delta_t| of the ordinary backward, now.
        words: a verdict, under the title.
    """
    layers = lags.shape[1]
    title = f"How far back the gradient reaches, after {steps[-1]:,} steps"
    across, down = min(layers, ACROSS), -(-layers // ACROSS)
    grid = [[1] * across] * down
    figure, [[now, whole], *rows] = page(title, 4.0 + 2.0 * down, [[1, 1], *grid], right=0.905, subtitle=words)
    maps = wrapped(rows, layers)
    logs = exponents(lags)
    for layer in range(layers):
        look: dict[str, Any] = {"color": LINES[layer % len(LINES)]}
        if lags.shape[2] == 1:
            look["marker"] = "o"  # one point makes no line
        now.plot(logs[-1, layer], **look, label=f"layer {layer}")
        if len(steps) > 1:
            now.plot(logs[0, layer], **look, linewidth=0.9, linestyle=":")
        whole.plot(range(1, window.shape[1] + 1), exponents(window[layer]), **look, label=f"layer {layer}")
    dotted = f" (dotted: at step {steps[0]:,})" if len(steps) > 1 else ""
    describe(now, "The last step's error" + dotted, "lag k, steps back", "|dL_T / dz_(T-k)|")
    describe(whole, "The errors of all steps", "step t of the window", "|delta_t| = |dL / dz_t|")
    for axes in (now, whole):
        powers_of_ten(axes, *axes.get_ylim())
        whole_numbers(axes)
    now.legend(loc="upper right")
    finite = logs[logs == logs]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (-1.0, 0.0)
    for layer, axes in enumerate(maps):
        unit = "|dL_T / dz_(T-k)|, grey: less" if layer % across == across - 1 or layer == layers - 1 else ""
        heat(axes, logs[:, layer].T, unit, low, max(high, low + 0.5), log=True, upside=True)
        describe(axes, f"Layer {layer} over training", "optimizer steps",
                   "" if layer % across else "lag k, steps back")  # fmt: skip
        whole_numbers(axes, "y")
        places = sorted({round(i * (len(steps) - 1) / 3) for i in range(4)})
        axes.set_xticks(places, [f"{steps[place]:,}" for place in places])
    return figure


def eigenvalues(step: int, now: Sequence[Tensor], first: Sequence[Tensor], sigma: Sequence[Sequence[Tensor]]) -> Any:
    """Draw each layer's W: its eigenvalues beside the unit circle, and its singular values; in grey those at the start.

    Args:
        step: optimizer steps made.
        now, first: for each layer complex (hidden,); now and before the first step.
        sigma: for each layer its singular values, now and before the first step.
    """
    layers = len(now)
    across, down = min(layers, ACROSS), -(-layers // ACROSS)
    title = f"The recurrent matrix W, after {step:,} steps"
    figure, rows = page(title, 6.4 if down == 1 else 4.9 * down, [[1] * across] * (2 * down), [1.9, 1] * down)
    circles, spectra = (wrapped(rows[half::2], layers) for half in (0, 1))
    angles = torch.linspace(0, 2 * math.pi, 200)
    for layer, (plane, spectrum) in enumerate(zip(circles, spectra, strict=True)):
        radius = float(now[layer].abs().max())
        plane.plot(angles.cos(), angles.sin(), color="black", linewidth=0.8)
        for values, colour, name in ((first[layer], PALE, "before the first step"), (now[layer], BLUE, "now")):
            plane.plot(values.real, values.imag, ".", markersize=3, color=colour, label=name)
        reach = 1.08 * largest(torch.cat([now[layer], first[layer]]), 1.0)
        plane.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        whole_numbers(plane)
        whole_numbers(plane, "y")
        describe(plane, f"Layer {layer}: radius {radius:.3f}", "real part", "imaginary part")
        spectrum.plot(sigma[layer][1], color=PALE, label="before the first step")
        spectrum.plot(sigma[layer][0], color=BLUE, label="now")
        spectrum.axhline(1, color="black", linewidth=0.8)
        spectrum.set_ylim(bottom=0)
        describe(spectrum, "Its singular values", "from the largest on", "singular value")
        whole_numbers(spectrum)
    spectra[0].legend(loc="lower left")
    return figure


def units_over_text(step: int, hidden: Sequence[Tensor], names: Sequence[str], text: Sequence[str]) -> Any:
    """Draw hidden states under the text that they read: a row a unit, the slowest unit at the top.

    Args:
        step: optimizer steps made.
        hidden: for each layer shown (time, hidden).
        names: of those layers.
        text: (time,) labels of the characters read.
    """
    height = 1.2 + 2.6 * len(hidden)
    title = f"Hidden states over a passage, after {step:,} steps"
    figure, rows = page(title, height, [[1]] * len(hidden), right=0.905)
    for [axes], states, name in zip(rows, hidden, names, strict=True):
        states = states.double()
        bound = largest(states, 1.0)
        states = torch.where(states.isfinite(), states, torch.nan)
        order = slowest_first(states)[:: -(-states.shape[1] // MOST_UNITS)]
        heat(axes, states[:, order].T.numpy(), "h_t", -bound, bound, SIGNS)
        characters_below(axes, text)
        axes.set_yticks([])
        shown = f"{len(order)} of {states.shape[1]} units" if len(order) < states.shape[1] else f"{len(order)} units"
        describe(axes, f"{name}: {shown}, the slowest at the top", "character read", "units")
    return figure


def slowest_first(states: Tensor) -> Tensor:
    """Return the units of (time, hidden) by how little they change in a step, relative to how much they vary."""
    change = states.diff(dim=0).square().mean(0)
    spread = states.var(0, correction=0).clamp(min=1e-12)
    return (change / spread).nan_to_num(0.0).argsort(stable=True)


# ---- The figures about the text: what every character of a passage costs, and which characters are taken for which.

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
    figure, [[axes]] = page(title, 1.15 + 0.26 * rows, [[1]], right=0.92)
    heat(axes, cells.view(rows, COLUMNS).numpy(), "bits", 0, MOST_BITS, LIGHT_AMOUNTS)
    place = np.arange(len(text))
    glyphs(axes, place % COLUMNS, place // COLUMNS, [short(symbol) for symbol in text], size=9.5, turned=6)
    describe(axes, f"{source}: {float(bits.mean()):.2f} bits a character", "", "")
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
    figure, [[pairs, costs]] = page(title, 4.6, [[1, 1.6]], left=room / (WIDTH * DPI))

    share = [100 * n / max(1, total) for _, _, n in worst]
    pairs.barh(range(len(worst)), share, color=BLUE)
    pairs.set_xlim(0, 1.05 * max(share, default=1.0))
    pairs.set_yticks([])
    pairs.set_ylim(max(len(worst), 1) - 0.4, -0.6)
    glyphs(pairs, -room / 2 / pairs.bbox.width, range(len(worst)), names, 8.5, pairs.get_yaxis_transform())
    right = found.hits() / max(1, total)
    describe(pairs, f"true → predicted ({right:.1%} right)", f"% of {total:,} characters", "")

    commonest = found.stood.argsort(descending=True, stable=True)[:MOST_CHARACTERS]
    commonest = commonest[found.stood[commonest] > 0]
    bits = found.per_character()[commonest] * NAT
    bits[~bits.isfinite()] = math.nan  # no bar
    costs.bar(range(len(bits)), bits.tolist(), color=ORANGE)
    mean = float(found.nats.sum()) / max(1, total) * NAT
    line = mean if math.isfinite(mean) else math.nan
    costs.axhline(line, color="black", linewidth=0.8, linestyle=":", label=f"mean of all: {mean:.2f}")
    costs.legend(loc="upper left")
    costs.set_xlim(-0.6, max(len(bits), 1) - 0.4)
    costs.set_ylim(0, 1.15 * largest([mean, *bits.tolist()], 0.01))
    characters_below(costs, [short(symbols[i]) for i in commonest.tolist()])
    describe(costs, "What a character costs", "true character, the commonest first", "bits")
    return figure
