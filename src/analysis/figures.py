"""The one module that talks to matplotlib; it is imported when the first figure is drawn.

A figure is a page of axes, 800 pixels wide, made without pyplot: nothing keeps it alive once its PNG is taken. Colours
can be told apart by colour-blind readers: Okabe and Ito's for lines, viridis for amounts, purple to orange for signs.
Logarithmic scales are drawn as exponents on a plain axis, colour bars as pictures, texts as one collection of glyphs:
matplotlib's own take three times as long, and figures are drawn while a network waits.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import matplotlib
import numpy as np
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
MONO = "DejaVu Sans Mono"  # comes with matplotlib
# Where one of these is installed, Chinese, Japanese and Korean characters are drawn; elsewhere they are boxes.
WIDE = ("Noto Sans Mono CJK SC", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "Droid Sans Fallback")


def page(
    title: str,
    height: float,
    rows: Sequence[Sequence[float]],
    heights: Sequence[float] | None = None,
    right: float = 0.985,
    subtitle: str = "",
) -> Any:
    """Return a figure and its axes, row by row.

    Args:
        title: stands over everything.
        height: in inches.
        rows: for each row the relative widths of its axes.
        heights: the relative heights of the rows.
        right: where the axes end, as a share of the width; colour bars need room beyond it.
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
        len(rows), 1, height_ratios=heights, left=0.085, right=right, bottom=bottom / height, top=1 - top / height,
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
    getattr(axes, f"{which}axis").set_major_locator(MaxNLocator(most, integer=True))


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
    axes.set_yticks(places, [f"{10**place:.0e}".replace("e-0", "e-").replace("e+0", "e") for place in places])


def decades_between(low: float, high: float, most: int = 5) -> list[float]:
    """Return a few whole exponents from low to high; both ends where there are none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return []
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    whole = list(range(first, last + 1, max(1, -(-(last - first + 1) // most))))
    return [float(place) for place in whole] or sorted({low, high})


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


def glyphs(axes: Axes, x: Any, y: Any, texts: Sequence[str], size: float, where: Transform | None = None) -> None:
    """Draw short texts (characters of a corpus) centred on points; what no font has becomes a box.

    `where`: the coordinates of the points, those of the data if None.
    """
    paths = [_glyph(drawable(text), size) for text in texts]
    collection = PathCollection(
        paths, offsets=np.column_stack([np.broadcast_to(x, len(texts)), np.broadcast_to(y, len(texts))]),
        offset_transform=where or axes.transData, facecolors="black", linewidths=0, clip_on=False,
    )  # fmt: skip
    collection.set_transform(Affine2D().scale(DPI / 72))
    axes.add_collection(collection, autolim=False)


def characters_below(axes: Axes, texts: Sequence[str], size: float = 7.5) -> None:
    """Label the places 0, 1, 2, ... of the x axis with characters of a text."""
    axes.set_xticks([])
    axes.xaxis.labelpad = 16
    glyphs(axes, range(len(texts)), -8 / (axes.bbox.height or 1), texts, size, axes.get_xaxis_transform())


@cache
def _glyph(text: str, size: float) -> Any:
    """The outline of a text around its middle; the line stands on a common height."""
    path = TextPath((0, 0), text, size=size, prop=font_manager.FontProperties(family=families()))
    width = path.get_extents().width if len(path.vertices) else 0.0
    left = path.get_extents().x0 if len(path.vertices) else 0.0
    return path.transformed(Affine2D().translate(-left - width / 2, -0.36 * size))


@cache
def families() -> tuple[str, ...]:
    """Return the fonts in which texts are set: one of even width, and behind it one with many characters, if any is."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return (MONO, *(name for name in WIDE if name in installed))[:2]


def drawable(text: str) -> str:
    """Return the text with a box in the place of characters that none of the fonts has."""
    return "".join(char if ord(char) in _known() else "□" for char in text)


@cache
def _known() -> frozenset[int]:
    fonts = [FT2Font(font_manager.findfont(font_manager.FontProperties(family=name))) for name in families()]
    return frozenset(code for font in fonts for code in font.get_charmap())
