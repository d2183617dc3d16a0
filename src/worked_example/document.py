"""The page that `python -m src.explain` prints: each equation, then its numbers, as text for a terminal or markdown."""

from __future__ import annotations

import itertools
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from src.config.schema import ExplainOptions
from src.worked_example.bptt_example import Difference, Numbers, Problem

WIDTH = 100  # columns of a terminal
INDENT, GAP = " ", "   "  # before a table, and between its columns
TOLERANCE = 1e-12  # rounding in float64 stays far below


class Heading(NamedTuple):
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


class Code(NamedTuple):
    """Lines that are shown as they are: an equation, or a command of a shell."""

    text: str
    language: str = "text"


class Table(NamedTuple):
    """Cells of text; an empty row is a gap. A table that is too wide is split; each part repeats the first column."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = str | Heading | Code | Table  # a str is a paragraph


def as_text(blocks: Iterable[Block]) -> str:
    """Return the page for a terminal, no line longer than WIDTH, except for a single cell that is wider."""
    return "\n\n".join("\n".join(line.rstrip() for line in _text(block)) for block in blocks) + "\n"


def as_markdown(blocks: Iterable[Block]) -> str:
    """Return the page in GitHub's markdown."""
    return "\n\n".join("\n".join(_markdown(block)) for block in blocks) + "\n"


def columns(text: str) -> int:
    """Return the width of a text in a terminal: two columns for a Chinese character, none for a combining accent."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def wrapped(parts: Iterable[str], width: int) -> list[str]:
    """Join parts with blanks into lines of at most `width` columns; a part that is wider gets a line of its own."""
    lines: list[str] = []
    for part in parts:
        fits = bool(lines) and columns(lines[-1]) + 1 + columns(part) <= width
        lines[-1:] = [f"{lines[-1]} {part}"] if fits else [*lines[-1:], part]
    return lines


def _text(block: Block) -> list[str]:
    if isinstance(block, str):
        return wrapped(block.split(" "), WIDTH)
    if isinstance(block, Heading):
        return [block.text, ("=" if block.level == 1 else "-") * columns(block.text)]
    if isinstance(block, Code):
        return [f"    {line}" for line in block.text.splitlines()]
    widths = [max(map(columns, column)) for column in zip(block.header, *filter(None, block.rows), strict=True)]
    rows = [block.header, ["-" * width for width in widths], *block.rows]
    parts = [[0]]  # the columns that fit side by side; a narrow first column, which identifies the rows, starts each
    for column in range(1, len(widths)):
        if sum(widths[c] + len(GAP) for c in [*parts[-1], column]) + len(INDENT) - len(GAP) > WIDTH:
            parts.append([0] if widths[0] <= 10 else [])
        parts[-1].append(column)
    lines: list[str] = []
    for part in parts:
        padded = [[row[c] + " " * (widths[c] - columns(row[c])) for c in part] if row else [] for row in rows]
        lines += [""] * bool(lines) + [INDENT + GAP.join(cells) for cells in padded]
    return lines


def _markdown(block: Block) -> list[str]:
    if isinstance(block, str):
        return [block.replace("`", r"\`")]
    if isinstance(block, Heading):
        return [f"{'#' * block.level} {block.text}".replace("`", r"\`")]
    if isinstance(block, Code):
        return [f"```{block.language}", block.text, "```"]
    header, *rows = [
        [" ".join(cell.split()).replace("|", "\\|") for cell in row]
        for row in (block.header, *filter(None, block.rows))
    ]
    code = [[f"`` {cell} ``" if "`" in cell else f"`{cell}`" if cell else "" for cell in row] for row in rows]
    header = [cell.replace("`", r"\`") for cell in header]
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in code)]


def page(
    options: ExplainOptions, symbols: str, p: Problem, numbers: Numbers, found: Sequence[Difference]
) -> list[Block]:
    """Return the whole page; `symbols` is the vocabulary by ids, `found` what `differences` returns."""
    visible = [text.replace(" ", "␣") for text in (options.input, options.target, symbols)]
    return [
        *_network(options, symbols, p),
        *_forward(visible, p, numbers),
        *_backward(p, numbers),
        *_sums(p, numbers),
        Heading("4. The tutorial's page, and its errors"),
        *_page_path(p, numbers),
        *_page_slope(p, numbers),
        *[PAGE_INPUT] * (symbols == "ehlo"),
        *_comparison(found, len(p.W)),
    ]


def vector(values: Tensor, digits: int = 3, signed: bool = True) -> str:
    """Return numbers side by side, all of one width."""
    rounded = (round(float(value), digits) + 0.0 for value in values)  # + 0.0: no -0.000
    return " ".join(f"{value:{' ' if signed else ''}.{digits}f}" for value in rounded)


def matrix(values: Tensor) -> list[str]:
    """Return the rows of a matrix, or of a vector as a column."""
    return [vector(row.reshape(-1)) for row in values]


def of(letter: str, layer: int, p: Problem) -> str:
    """Return `U^2` for layer 1 (counted from 0); `U` where there is only one layer, `x_t` for the input."""
    if layer < 0:
        return "x_t"
    return f"{letter}^{layer + 1}" if len(p.W) > 1 else letter


def _network(options: ExplainOptions, symbols: str, p: Problem) -> list[Block]:
    layers, hidden, word, target = options.num_layers, options.hidden_size, options.input, options.target
    command = ["python", "-m", "src.train", "model=manual", "model.readout=linear", f"model.hidden_size={hidden}"]
    for key, given, default in (
        ("model.num_layers", layers, 1), ("model.nonlinearity", options.nonlinearity, "tanh"),
        ("data.input", word, "hello"), ("data.target", target, "ohlol"), ("data.symbols", symbols, "ehlo"),
    ):  # fmt: skip
        command += [f"{key}={given}"] * (given != default)
    lines = wrapped(map(shlex.quote, [*command, f"seed={options.seed}"]), WIDTH - 10)
    weights = {of(letter, l, p): matrix(getattr(p, letter)[l]) for l in range(layers) for letter in "UWb"}  # noqa: E741
    weights |= {"V": matrix(p.V), "c": matrix(p.c)}
    tables = []
    for names in (list(weights)[i : i + 3] for i in range(0, len(weights), 3)):
        rows = itertools.zip_longest(*(weights[name] for name in names), fillvalue="")
        tables.append(Table(names, list(rows)))
    text = (
        f"A recurrent network of {layers} layer{'s' * (layers > 1)} with {hidden} {p.nonlinearity} unit"
        f'{"s" * (hidden > 1)}{" each" * (layers > 1)} reads the characters of "{word}" one after another and is to '
        f'predict "{target}". Every number is in float64. t counts the steps, from 1. A vector of a step is one line.'
    )
    return [
        Heading(f'Backpropagation through time: "{word}" -> "{target}"', 1),
        text,
        f"The weights are those that the seed {options.seed} gives to:",
        Code(" \\\n    ".join(lines), "sh"),
        *tables,
    ]


def _forward(texts: Sequence[str], p: Problem, numbers: Numbers) -> list[Block]:
    word, target, symbols = texts
    blocks: list[Block] = [Heading("1. Forward")]
    for l in range(len(p.W)):  # noqa: E741  # the equations' letter
        U, W, b, z, h, before = (of(letter, l, p) for letter in ("U", "W", "b", "z_t", "h_t", "h_{t-1}"))
        below = of("h_t", l - 1, p)
        blocks.append(Code(f"{z} = {U} {below} + {W} {before} + {b}          {h} = {p.nonlinearity}({z})"))
        if l == 0:
            picks = f"x_t is one-hot: {U} x_t picks one column of {U}, that of the character among {' '.join(symbols)}."
            blocks.append(f"{picks} The state before the first step is zero.")
        inputs = list(word) if l == 0 else matrix(numbers.h[l - 1])
        recurrent = [0 * p.b[l], *(p.W[l] @ h_t for h_t in numbers.h[l][:-1])]
        rows = zip(inputs, map(vector, recurrent), matrix(numbers.z[l]), matrix(numbers.h[l]), strict=True)
        header = ["t", "reads" if l == 0 else below, f"{W} {before}", z, h]
        blocks.append(Table(header, [[f"{t}", *row] for t, row in enumerate(rows, start=1)]))
    names = " ".join(" " * (5 - columns(symbol)) + symbol for symbol in symbols)
    outputs = [
        [f"{t + 1}", target[t], vector(o_t), f"{'':7} {vector(numbers.yhat[t], signed=False)}",
         symbols[int(o_t.argmax())], f"{float(numbers.losses[t]):.4f}"]
        for t, o_t in enumerate(numbers.o)
    ]  # fmt: skip
    terms = [f"{float(loss):.4f}" for loss in numbers.losses]
    total = " + ".join(terms if len(terms) <= 8 else [*terms[:3], "...", terms[-1]])
    top = of("h_t", len(p.W) - 1, p)
    return [
        *blocks,
        Code(f"o_t = V {top} + c          yhat_t = softmax(o_t)          L_t = -log yhat_t[target_t]"),
        Table(["t", "target", "o_t", f"yhat_t: {names}", "predicted", "L_t"], outputs),
        Code(f"L = sum_t L_t = {total} = {float(numbers.losses.sum()):.4f}"),
    ]


def _backward(p: Problem, numbers: Numbers) -> list[Block]:
    T, top = len(p.x), len(p.W) - 1
    text = (
        "delta_t = dL/dz_t. The gradient reaches step t from above (the readout, or the layer above, by U) and from "
        "step t+1 (by W). The two are added and multiplied, entry by entry, with the slope f'(z_t)"
        f"{' = 1 - h_t^2.' if p.nonlinearity == 'tanh' else ': 1 where z_t > 0, else 0.'} The computation begins at "
        f"t = {T}, where nothing comes from a later step."
    )
    blocks: list[Block] = [
        Heading("2. Backward: every delta, and the two paths that lead to it"),
        text,
        Code("dL/do_t = yhat_t - y_t"),
        Table(["t", "yhat_t - y_t"], [[f"{t + 1}", vector(numbers.error[t])] for t in reversed(range(T))]),
    ]
    for l in reversed(range(top + 1)):  # noqa: E741
        W, z, delta, later = (of(letter, l, p) for letter in ("W", "z_t", "delta_t", "delta_{t+1}"))
        above = "V^T (yhat_t - y_t)" if l == top else f"U^{l + 2}^T delta_t^{l + 2}"
        rows = [
            [f"{t + 1}", vector(numbers.above[l][t], 4), vector(numbers.later[l][t], 4),
             vector(numbers.slope[l][t], signed=False), vector(numbers.delta[l][t], 4)]
            for t in reversed(range(T))
        ]  # fmt: skip
        blocks.append(Code(f"{delta} = f'({z}) * ( {above} + {W}^T {later} )"))
        blocks.append(Table(["t", "from above", "from t+1", f"f'({z})", delta], rows))
    return blocks


def _sums(p: Problem, numbers: Numbers) -> list[Block]:
    blocks: list[Block] = [
        Heading("3. The gradients: sums over time"),
        "All steps share U, W, b, V and c, so each step has its term in their gradients. Each row below is the sum so "
        "far, from the last step to the first; the sum at t = 1 is the gradient.",
    ]
    for l in range(len(p.W)):  # noqa: E741
        dU, dW, db, delta, before = (of(letter, l, p) for letter in ("dU", "dW", "db", "delta_t", "h_{t-1}"))
        terms = f"{dU} = sum_t {delta} ({of('h_t', l - 1, p)})^T{' ' * 10}{dW} = sum_t {delta} ({before})^T"
        blocks.append(Code(f"{terms}\n{db} = sum_t {delta}"))
        blocks.append(_partial_sums({name: numbers.sums[f"{name[:2]}^{l + 1}"] for name in (dU, dW, db)}))
    h = of("h_t", len(p.W) - 1, p)
    blocks.append(Code(f"dV = sum_t (yhat_t - y_t) ({h})^T          dc = sum_t (yhat_t - y_t)"))
    return [*blocks, _partial_sums({name: numbers.sums[name] for name in ("dV", "dc")})]


def _partial_sums(sums: dict[str, Tensor]) -> Table:
    """Return the sums from step T down to step t, for t = T, ..., 1, with a gap between two steps."""
    rows: list[list[str]] = []
    for t in reversed(range(len(next(iter(sums.values()))))):
        lines = zip(*(matrix(partial[t]) for partial in sums.values()), strict=True)
        rows += [[f"{t + 1}" if i == 0 else "", *line] for i, line in enumerate(lines)] + [[]] * (t > 0)
    return Table(["t", *sums], rows)


def _page_path(p: Problem, numbers: Numbers) -> list[Block]:
    """Return delta_1^2 by its two paths, in the page's meaning of delta (dL/dh); without numbers below three layers."""
    shown = len(p.W) >= 3 and len(p.x) >= 2
    error = (
        f"Error in the page: the path along time. The page prints delta_2^3 and z_2^3 in the first term"
        f"{'' if shown else ' of its formula for delta_1^2'}, a gradient and a slope of layer 3; but W acts along time "
        "within layer 2, so they must read delta_2^2 and z_2^2."
    )
    if not shown:
        return [f"{error} (explain.num_layers=3 shows it on numbers, at two steps or more.)"]
    g = [above + later for above, later in zip(numbers.above, numbers.later, strict=True)]  # dL/dh_t
    W, U, slope = p.W[1], p.U[2], numbers.slope
    by_W, by_U = W.T @ (slope[1][1] * g[1][1]), U.T @ (slope[2][0] * g[2][0])
    printed, corrected = W.T @ (slope[2][1] * g[2][1]) + by_U, by_W + by_U
    lines = [
        ("delta_2^2 = dL/dh_2^2", g[1][1]),
        ("f'(z_2^2)", slope[1][1]),
        ("by W, along time:          W^2^T diag(f'(z_2^2)) delta_2^2", by_W),
        ("", None),
        ("delta_1^3 = dL/dh_1^3", g[2][0]),
        ("f'(z_1^3)", slope[2][0]),
        ("by U, down from layer 3:   U^3^T diag(f'(z_1^3)) delta_1^3", by_U),
        ("", None),
        ("delta_1^2, the sum of both paths", corrected),
        ("section 2: layer 2, t = 1, from above + from t+1", g[1][0]),
        ("", None),
        ("as printed, with delta_2^3 and z_2^3 in the first term", printed),
    ]
    rows = [[] if number is None else [name, vector(number, 4)] for name, number in lines]
    off = f"As printed, delta_1^2 is off by up to {_distance(printed, g[1][0])}; corrected, by"
    return [
        "The formula for delta_1^2, layer 2 at step 1. The page calls dL/dh by the name delta (ours is dL/dz = f'(z) * "
        "dL/dh); in its meaning, with the first term corrected and W and U numbered by layer:",
        Code(
            "delta_1^2 = W^2^T diag(f'(z_2^2)) delta_2^2  +  U^3^T diag(f'(z_1^3)) delta_1^3\n"
            "            the path along time            the path down from layer 3"
        ),
        Table(["the page's delta, dL/dh", "numbers"], rows),
        f"{error} {off} {_distance(corrected, g[1][0])}.",
    ]


def _page_slope(p: Problem, numbers: Numbers) -> list[Block]:
    """Return dL/dU of the top layer with the page's delta, as printed and corrected."""
    top = len(p.W) - 1
    below = p.x if top == 0 else numbers.h[top - 1]
    g = numbers.above[top] + numbers.later[top]
    gradient = numbers.gradients()[f"dU^{top + 1}"]
    off, corrected = _distance(g.T @ below, gradient), _distance((numbers.slope[top] * g).T @ below, gradient)
    layer, input_ = (f"^{top + 1}", f"h_t^{top}") if top else ("", "x_t")
    terms = f"f'(z_t{layer}) * delta_t{layer} ({input_})^T"
    return [
        Code(f"dL/dU{layer} = sum_t {terms}          (delta in the page's meaning)"),
        "Error in the page: dL/dU without the slope. The page's delta is dL/dh, and it is used in dL/dU as if it were "
        f"dL/dz. As printed, without the factor f', dL/dU{layer} is off by up to {off}; with it, by {corrected}.",
    ]


PAGE_INPUT = (
    'Error in the page: the input. The page means to read "hello", which over e h l o is [1, 0, 2, 2, 3]; its script '
    'has x_data = [1, 2, 2, 2, 3], which spells "hlllo". (python -m src.explain explain.input=hlllo follows the '
    "misprint, and so does experiment=tutorial.)"
)


def _distance(one: Tensor, other: Tensor) -> str:
    largest = float((one - other).abs().max())
    return f"{largest:.4f}" if largest >= 1e-4 else f"{largest:.1e}" if largest else "0"


def _comparison(found: Sequence[Difference], layers: int) -> list[Block]:
    worst = max(max(d.from_autograd, d.from_fast_path or 0.0) for d in found)
    rows = [
        [d.name if layers > 1 else d.name.removesuffix("^1"), f"{d.largest:.4f}", f"{d.from_autograd:.1e}",
         "-" if d.from_fast_path is None else f"{d.from_fast_path:.1e}"]
        for d in found
    ]  # fmt: skip
    return [
        Heading("5. Compared with autograd"),
        "The same network through torch's operations and autograd, and through the fast backward pass of model=manual "
        "(src/models/bptt.py): the largest difference of an entry from the numbers above.",
        Table(["", "largest entry", "from autograd's", "from model=manual's"], rows),
        f"The largest difference of all is {worst:.1e}: {'' if worst < TOLERANCE else 'NOT '}below {TOLERANCE:.0e}.",
    ]
