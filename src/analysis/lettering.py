"""Short texts on a figure, characters of any corpus, drawn as one collection of glyphs: a third of matplotlib's time.

A character that no font here has is written as its code, 4F60 for U+4F60. What is longer than two characters (a code,
a byte as \\xNN) is turned where there is room for one character only.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, Transform

from src.analysis.figures import DPI

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
