"""What the figures share: a page of axes, heat maps, and how a character of any text is written on a figure.

A figure is 800 pixels wide and made without pyplot, which would keep it alive. matplotlib is imported at first use.
Colours suit colour-blind readers. What is not finite (of a network that has diverged) is left out.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from src.data.vocabulary import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, VERMILION, GREY = "#0072B2", "#E69F00", "#D55E00", "#b5b5b5"
COLOURS = (BLUE, VERMILION, "#009E73", "#CC79A7", ORANGE, "#56B4E9")
NAT = 1 / math.log(2)  # bits in a nat
WIDTH = 8.0  # inches, of a hundred pixels each
ACROSS = 3  # layers side by side; more of them go into further rows
SMALLEST = 1e-8  # what is smaller than this share of the largest value is left out of a logarithmic scale
STYLE: dict[str, Any] = {
    "font.size": 9.0, "axes.titlesize": 10.0, "axes.labelsize": 9.0, "axes.spines.top": False,
    "axes.spines.right": False, "legend.fontsize": 8.0, "legend.frameon": False, "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0, "axes.titlelocation": "left",
}  # fmt: skip
# matplotlib brings the first one. Chinese, Japanese and Korean are shown where one of the others is installed.
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei",
         "WenQuanYi Micro Hei", "PingFang SC", "Microsoft YaHei", "SimHei", "Arial Unicode MS")  # fmt: skip


def styled() -> AbstractContextManager[None]:
    """Return a context in which figures are drawn in our style; afterwards matplotlib's settings are restored."""
    from matplotlib import rc_context

    return rc_context(STYLE | {"font.family": fonts()})  # type: ignore[arg-type]  # its keys are literals


def page(
    title: str, height: float, rows: Sequence[int], heights: Sequence[float] | None = None, footnote: str = ""
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure `height` inches high and its axes, row by row; `rows`: axes in each row; `heights`: relative."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=100)
    figure.suptitle(title, x=0.01, y=1 - 0.07 / height, va="top", ha="left", fontsize=11, fontweight="bold")
    figure.supxlabel(footnote, x=0.01, y=0.07 / height, va="bottom", ha="left", fontsize=8)
    columns = math.lcm(*rows)
    # Fixed margins and gaps, in inches: a layout engine draws all texts twice more to measure them
    above, below = 0.65, 0.5 + 0.17 * (1 + footnote.count("\n")) * bool(footnote)
    margins = {"left": 0.75 / WIDTH, "right": 1 - 0.2 / WIDTH, "top": 1 - above / height, "bottom": below / height}
    gaps = {"wspace": gap(0.65, WIDTH - 0.95, columns), "hspace": gap(0.8, height - above - below, len(rows))}
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights, **margins, **gaps)
    return figure, [
        [figure.add_subplot(grid[row, i * columns // n : (i + 1) * columns // n]) for i in range(n)]
        for row, n in enumerate(rows)
    ]


def gap(inches: float, length: float, count: int) -> float:
    """Return a gap between `count` axes on a length in inches as matplotlib wants it: as a share of their mean size."""
    return inches * count / (length - inches * (count - 1))


def in_rows(count: int) -> list[int]:
    """Return how many of `count` axes go into each row."""
    return [min(ACROSS, count - first) for first in range(0, count, ACROSS)]


def png(figure: Figure) -> bytes:
    """Return the figure as PNG and release it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with io.BytesIO() as file:
        FigureCanvasAgg(figure).print_png(file, pil_kwargs={"compress_level": 3})
        figure.clear()
        return file.getvalue()


def whole_numbers(axes: Axes, which: str = "x", most: int = 5) -> None:
    """Put ticks on whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    getattr(axes, f"{which}axis").set_major_locator(MaxNLocator(most, integer=True, min_n_ticks=1))


def log_scale(axis: Any) -> None:
    """Put a few ticks of plain text on a logarithmic axis: the usual ones are many formulas, and slow to draw."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()  # over many decades LogLocator has no ticks but powers of ten
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0), numticks=6))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def finite(values: Any) -> Any:
    """Return values as float64, with NaN for what is not finite."""
    array = torch.as_tensor(values, dtype=torch.float64).clone().numpy()
    array[~np.isfinite(array)] = np.nan
    return array


def positive(values: Any) -> np.ndarray:
    """Return values for a logarithmic scale: NaN for zero, infinity and what is far below the rest."""
    array: np.ndarray = finite(values)
    array[~(array > SMALLEST * largest(array, 0.0))] = np.nan
    return array


def largest(values: Any, least: float) -> float:
    """Return the largest modulus among the finite values, or `least` if none is larger."""
    moduli = np.abs(np.asarray(values))
    return float(np.max(moduli, initial=least, where=np.isfinite(moduli)))


def heat(axes: Axes, values: np.ndarray, **look: Any) -> Any:
    """Draw (rows, columns) as colours and return the image; NaN stays grey. `look` is for `imshow`."""
    axes.set_facecolor("#dddddd")
    return axes.imshow(values, aspect="auto", interpolation="nearest", **look)


def colour_bar(image: Any, axes: Any, unit: str) -> Any:
    """Draw what the colours of an image mean, beside one axes or several; return the bar's own axis."""
    return image.figure.colorbar(image, ax=axes, label=unit, pad=0.01, fraction=0.1, aspect=30).ax.yaxis


def short(symbol: str) -> str:
    """Return the label for a figure: an invisible character or one that no font has as its number, <unknown> as <?>."""
    text = "<?>" if len(symbol) > 4 else label(symbol).removeprefix("U+")
    return text if text.isascii() else "".join(c if ord(c) in in_fonts() else f"{ord(c):04X}" for c in text)


def characters_below(axes: Axes, texts: Sequence[str]) -> None:
    """Label the positions 0, 1, 2, ... of the x axis with characters of a text; longer labels are turned."""
    axes.set_xticks(range(len(texts)), list(texts), fontsize=7.5, parse_math=False)
    axes.tick_params(axis="x", length=0)
    for text, tick in zip(texts, axes.get_xticklabels(), strict=True):
        if len(text) > 2:
            tick.set(rotation=90, fontsize=6.5)


@cache
def fonts() -> list[str]:
    """Return which of FONTS are installed; matplotlib takes each character from the first one that has it."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FONTS if name in installed]


@cache
def in_fonts() -> frozenset[int]:
    """Return the code points that these fonts have."""
    from matplotlib import font_manager

    files = (font_manager.findfont(name) for name in fonts())
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())
