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
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
