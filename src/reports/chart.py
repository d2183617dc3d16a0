"""Curves as one inline SVG: no library, no network; colours and dashes come from the page's style.

A line is told by its colour, its dash pattern and the place number at its right end, so that it can be read without
seeing colours. Coordinates are in the units of the view box; the browser scales it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from src.reports.cells import figure
from src.reports.curves import Curve

WIDTH, HEIGHT = 960, 430
LEFT, RIGHT, TOP, BOTTOM = 64, 44, 12, 44
Scale = Callable[[float], float]
COLOURS, DASHES = 6, ("", "7 4", "2 3", "9 3 2 3")


def colour_of(place: int) -> str:
    """The style's class for the colour of the curve at this place (1, 2, 3 ...) of the table."""
    return f"c{(place - 1) % COLOURS}"


def look(place: int) -> str:
    """The attributes that make the curve at this place look like no other: 6 colours times 4 dash patterns."""
    dash = DASHES[((place - 1) // COLOURS + place - 1) % len(DASHES)]
    return f'class="{colour_of(place)}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def swatch(place: int) -> str:
    """A short piece of the line at this place, for the table."""
    return f'<svg class="swatch" viewBox="0 0 34 10" aria-hidden="true"><path {look(place)} d="M1 5H33"/></svg>'


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def value_range(curves: Sequence[Curve], lines: Mapping[str, float]) -> tuple[float, float]:
    """The heights that the chart shows.

    The first fifth of training may leave the picture at its top: it is high for every run, and would flatten what
    differs. So may what lies beyond chance (a run that diverged). A baseline is inside if it is not far off.
    """
    low = min(m - s for curve in curves for m, s in zip(curve.mean, curve.sd, strict=True))
    settled = []
    for curve in curves:
        late = curve.steps[0] + 0.2 * (curve.steps[-1] - curve.steps[0]) if len(curve.steps) > 10 else -math.inf
        points = zip(curve.steps, curve.mean, curve.sd, strict=True)
        settled += [m + s for step, m, s in points if step >= late]
    high = max(settled)
    if lines and high > 1.25 * max(lines.values()) > low > 0:
        high = 1.25 * max(lines.values())
    span = (high - low) or abs(high) or 1.0
    near = [value for value in lines.values() if low - span / 2 <= value <= high + span / 2]
    low, high = min([low, *near]), max([high, *near])
    span = (high - low) or abs(high) or 1.0
    return low - 0.04 * span, high + 0.04 * span


def draw(curves: Mapping[int, tuple[int, Curve]], lines: Mapping[str, float], y_name: str, shown: int) -> str:
    """The chart as an SVG element.

    `curves` maps a row's index to its place and curve; the first `shown` of them are visible at first.
    `lines` are baselines, drawn across where they are near enough.
    """
    only = [curve for _, curve in curves.values()]
    low, high = value_range(only, lines)
    start, end = min(c.steps[0] for c in only), max(c.steps[-1] for c in only)
    if end <= start:
        start, end = start - 1, end + 1

    def x(step: float) -> float:
        return LEFT + (step - start) / (end - start) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg id="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_name)} by optimizer step">',
        f'<clipPath id="inside"><rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/></clipPath>',
    ]
    digits = _decimals(ticks(low, high, 6))
    for value in ticks(low, high, 6):
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    for step in ticks(start, end, 8):
        parts.append(f'<path class="grid" d="M{x(step):.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step:,.0f}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">optimizer steps</text>')
    for name, value in lines.items():
        if low <= value <= high:
            parts.append(f'<path class="baseline" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
            # Curves fall from the upper left to the lower right: a name is out of their way on the other side.
            above = y(value) < HEIGHT / 2
            where = f'x="{WIDTH - RIGHT - 6}" text-anchor="end"' if above else f'x="{LEFT + 6}"'
            parts.append(f'<text {where} y="{y(value) - 5:.1f}">{escape(name)} {figure(value)}</text>')
    for order, (index, (place, curve)) in enumerate(curves.items()):
        hidden = " hidden" if order >= shown else ""
        parts.append(f'<g data-row="{index}"{hidden}>' + _curve(place, curve, x, y) + "</g>")
    return "\n".join([*parts, "</svg>"])


def _curve(place: int, curve: Curve, x: Scale, y: Scale) -> str:
    colour = colour_of(place)
    above = [f"{x(s):.1f} {y(m + d):.1f}" for s, m, d in zip(curve.steps, curve.mean, curve.sd, strict=True)]
    below = [f"{x(s):.1f} {y(m - d):.1f}" for s, m, d in zip(curve.steps, curve.mean, curve.sd, strict=True)]
    middle = [f"{x(s):.1f} {y(m):.1f}" for s, m in zip(curve.steps, curve.mean, strict=True)]
    band = f'<path class="band {colour}" d="M{"L".join(above + below[::-1])}Z"/>' if curve.n > 1 else ""
    if len(middle) == 1:  # one validation is a point, not a line
        px, _, py = middle[0].partition(" ")
        line = f'<circle class="{colour}" cx="{px}" cy="{py}" r="4"/>'
    else:
        line = f'<path {look(place)} d="M{"L".join(middle)}"/>'
    end = y(curve.mean[-1]) + 4  # the script moves labels apart where lines end together
    label = f'<text x="{x(curve.steps[-1]) + 6:.1f}" y="{end:.1f}" data-y="{end:.1f}" class="place">{place}</text>'
    return f'<g clip-path="url(#inside)">{band}{line}</g>{label}'


def _decimals(values: Sequence[float]) -> int:
    """The decimals that tell neighbouring ticks apart."""
    if len(values) < 2:
        return 2
    return max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-9))
