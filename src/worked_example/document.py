"""The page that `python -m src.explain` prints: each equation, then its numbers, as text for a terminal or markdown."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from src.worked_example.bptt_example import (
    RATE,
    Numbers,
    Problem,
    Shown,
    by_autograd,
    choose_shown,
    compute,
    cut,
    differences,
    moved,
    reach,
    sums_from_the_last,
    updated,
)

if TYPE_CHECKING:
    from src.worked_example.lesson import Lesson

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


def page(lesson: Lesson, full: bool = False) -> list[Block]:
    """Return the page; `full` adds each product and sum, the steps' parts of the gradients, and the tutorial's errors."""
    p = lesson.problem
    numbers = compute(p)
    shown = choose_shown(p, numbers)
    few, n = cut(p, numbers, shown)  # what is shown; all sums are over all of p and numbers
    blocks = [
        *_network(lesson, few, shown),
        *_forward(p, numbers, n, shown),
        *_loss(p, numbers, few, n),
        *_backward(p, numbers, few, n, shown),
        *_sums(p, numbers, n, shown, full),
        *_check(p, numbers, n, shown, full),
        *_update(p, numbers),
        *_reach(p),
    ]
    if full or len(p.W) >= 3:
        blocks += [Heading("8. The tutorial's page, and its errors"), *_page_path(p, numbers, shown)]
    if full:
        return [*blocks, *_page_slope(p, numbers), *[PAGE_INPUT] * ("".join(p.symbols) == "ehlo")]
    more = (
        "explain.level=full adds every product and sum, each step's part of the gradients, and the tutorial's errors."
    )
    return [
        *blocks,
        f"{more} explain.format=html output=lesson.html makes a page on which every number can be touched.",
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


# -- one entry, worked out --------------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """Return a rounded number, without -0.000."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def added(terms: Iterable[float], digits: int = 3) -> list[str]:
    """Return `0.310`, `- 0.560`, `+ 0.386`."""
    texts = [number(term, digits) for term in terms]
    return [texts[0], *(f"- {text[1:]}" if text.startswith("-") else f"+ {text}" for text in texts[1:])]


def products(weights: Tensor, values: Tensor, shown: Tensor, digits: int = 3) -> list[str]:
    """Return `(-0.552)(0.602)`, `+ (-0.382)(0.097)`, ...: the products of the shown units, then the rest as one number."""
    texts = [f"({number(weights[i], digits)})({number(values[i], digits)})" for i in shown]
    texts = [texts[0], *(f"+ {text}" for text in texts[1:])]
    if others := len(weights) - len(shown):
        rest = float(weights @ values - weights[shown] @ values[shown])
        texts += [f"{added([0, rest], digits)[1]} (the other {others})"]
    return texts


def best(
    candidates: Iterable[tuple[int, int]], sums: Callable[[int, int], list[tuple[float, float]]]
) -> tuple[int, int]:
    """Return the candidate whose sums are right as printed: of (rounded sum, result), the smallest largest difference."""
    return min(candidates, key=lambda one: round(max(abs(a - b) for a, b in sums(*one)), 6))


def lines(*rows: Sequence[str]) -> Code:
    """Return rows of parts as code; a row that is too long goes on below, indented."""
    return Code("\n".join("\n        ".join(wrapped(row, WIDTH - 12)) for row in rows))


# -- the sections -----------------------------------------------------------------------------------------------------


def _network(lesson: Lesson, few: Problem, shown: Shown) -> list[Block]:
    p = lesson.problem
    layers, hidden, f = len(p.W), len(p.b[0]), p.nonlinearity
    weights = {of(letter, l, p): matrix(getattr(few, letter)[l]) for l in range(layers) for letter in "UWb"}  # noqa: E741
    weights |= {"V": matrix(few.V), "c": matrix(few.c)} if p.has_readout else {}
    tables = []
    for names in (list(weights)[i : i + 3] for i in range(0, len(weights), 3)):
        rows = itertools.zip_longest(*(weights[name] for name in names), fillvalue="")
        tables.append(Table(names, list(rows)))
    text = (
        f"A recurrent network of {layers} layer{'s' * (layers > 1)} with {hidden} {f} unit{'s' * (hidden > 1)}"
        f'{" each" * (layers > 1)} reads the characters of "{lesson.input}" one after another and is to predict '
        f'"{lesson.target}". Every number is computed in float64 and rounded to be printed. t counts the steps, from 1. A vector '
        "of a step is one line."
    )
    blocks: list[Block] = [Heading(f'Backpropagation through time: "{lesson.input}" -> "{lesson.target}"', 1), text]
    if earlier := len(p.earlier):
        blocks.append(
            f"The text is longer than the {len(p.x)} steps that are explained, its last ones. The {earlier} "
            f"character{'s' * (earlier > 1)} before them are read first, and leave the state h_0; no gradient goes back there."
        )
    blocks += [*_cut_words(p, few, shown), Code(LETTERS if p.has_readout else LETTERS.replace(*NO_READOUT))]
    if lesson.command:
        seed = lesson.command[-1].removeprefix("seed=")
        blocks += [f"The weights are those that the seed {seed} gives to:"]
        blocks += [Code(" \\\n    ".join(wrapped(lesson.command, WIDTH - 10)), "sh")]
    else:
        blocks.append(f"The weights are those of {lesson.source}.")
    if lesson.averaged:
        blocks.append(
            f"It was trained on the mean of the L_t (loss.over_time=mean). L is their sum here, as in the tutorial, so that "
            f"every gradient is {len(p.x)} times that of the mean."
        )
    return [*blocks, *tables]


LETTERS = """x_t        the input of step t: one-hot, 1 at the place of the character, else 0
U, W, b    the weights of a layer: from below, from its own state one step before, and the bias
z_t, h_t   a layer's sum of these, and its hidden state h_t = f(z_t)
V, c       the readout o_t = V h_t + c; softmax turns o_t into probabilities yhat_t
L          the loss: the sum over the steps of L_t = -log(the probability of the target), in nats
delta_t    dL/dz_t: how fast L grows with z_t. It is made of two parts:
  above    what comes back at the same step, from the readout or from the layer above
  later    what comes back from step t+1, through W"""
NO_READOUT = (
    "V, c       the readout o_t = V h_t + c; softmax turns o_t",
    "o_t        the hidden state itself; softmax turns it",
)


def _cut_words(p: Problem, few: Problem, shown: Shown) -> list[Block]:
    blocks: list[Block] = []
    if any(len(units) < len(b) for units, b in zip(shown.units, p.b, strict=True)):
        names = [
            f"{', '.join(f'{unit + 1}' for unit in units)}{f' of layer {l + 1}' * (len(p.W) > 1)}"
            for l, units in enumerate(shown.units)  # noqa: E741
        ]
        blocks.append(
            f"Of the {len(p.b[0])} units per layer those with the largest sum_t |delta_t| are shown: units "
            f"{'; '.join(names)}, in this order. Every number is computed with all units."
        )
    if len(few.symbols) < len(p.symbols):
        blocks.append(
            f"Of the {len(p.symbols)} symbols {len(few.symbols)} are shown, in this order: {' '.join(few.symbols)}. "
            "The softmax is over all of them."
        )
    return blocks


def _forward(p: Problem, whole: Numbers, n: Numbers, shown: Shown) -> list[Block]:
    blocks: list[Block] = [Heading("1. Forward")]
    for l in range(len(p.W)):  # noqa: E741  # the equations' letter
        U, W, b, z, h, before = (of(letter, l, p) for letter in ("U", "W", "b", "z_t", "h_t", "h_{t-1}"))
        below = of("h_t", l - 1, p)
        blocks.append(Code(f"{z} = {U} {below} + {W} {before} + {b}          {h} = {p.nonlinearity}({z})"))
        if l == 0:
            start = "The state before the first step is zero." if not len(p.earlier) else ""
            blocks.append(f"x_t is one-hot, so {U} x_t is one column of {U}: that of the character. {start}".strip())
        read = [p.symbols[int(x_t.argmax())] for x_t in p.x]
        columns_ = [n.from_below[l], n.from_before[l], n.z[l], n.h[l]]
        rows = [
            [f"{t + 1}", *[read[t]] * (l == 0), *(vector(column[t]) for column in columns_)] for t in range(len(p.x))
        ]
        blocks.append(Table(["t", *["x_t"] * (l == 0), f"{U} {below}", f"{W} {before}", z, h], rows))
        if l == 0:
            blocks += _entry_of_z(p, whole, shown)
    return blocks


def _entry_of_z(p: Problem, n: Numbers, shown: Shown) -> list[Block]:
    below, before, z = n.from_below[0], n.from_before[0], n.z[0]
    T, f, units = len(p.x), p.nonlinearity, shown.units[0]

    def sums(t: int, i: int) -> list[tuple[float, float]]:
        parts = [
            (round(float(below[s, i]), 3) + round(float(before[s, i]), 3) + round(float(p.b[0][i]), 3), s)
            for s in (0, t)
        ]
        inner = sum(round(float(w), 3) * round(float(h), 3) for w, h in zip(p.W[0][i], n.before[0][t], strict=True))
        return [*((total, float(z[s, i])) for total, s in parts), (inner, float(before[t, i]))]

    t, i = best([(t, int(i)) for t in range(min(1, T - 1), T) for i in units], sums)
    rows = []
    for s in sorted({0, t}):
        terms = added([below[s, i], before[s, i], p.b[0][i]])
        rows.append(
            [f"t = {s + 1}:  z = U x_t + W h_{{t-1}} + b =", *terms, f"= {number(z[s, i])},", f"h = {f}({number(z[s, i])})",
             f"= {number(n.h[0][s, i])}"]
        )  # fmt: skip
    inner = products(p.W[0][i], n.before[0][t], units)
    rows.append([f"where W h_{t} =", *inner, f"= {number(before[t, i])}"])
    layer = " of layer 1" * (len(p.W) > 1)
    return [f"Entry {i + 1}{layer}, worked out:", lines(*rows)]


def _loss(p: Problem, whole: Numbers, few: Problem, n: Numbers) -> list[Block]:
    top = of("h_t", len(p.W) - 1, p)
    names = " ".join(" " * (5 - columns(symbol)) + symbol for symbol in few.symbols)
    rows = [
        [f"{t + 1}", p.symbols[int(p.targets[t])], vector(n.o[t]), f"{'':7} {vector(n.yhat[t], signed=False)}",
         p.symbols[int(whole.o[t].argmax())], f"{float(n.losses[t]):.4f}"]
        for t in range(len(p.x))
    ]  # fmt: skip
    terms = [f"{float(loss):.4f}" for loss in n.losses]
    total = " + ".join(terms if len(terms) <= 8 else [*terms[:3], "...", terms[-1]])
    probability = float((-n.losses[0]).exp())
    return [
        Heading("2. The loss"),
        Code(
            f"o_t = {f'V {top} + c' if p.has_readout else top}          yhat_t = softmax(o_t)          L_t = -log yhat_t[target_t]"
        ),
        Table(["t", "target", "o_t", f"yhat_t: {names}", "predicted", "L_t"], rows),
        f"At t = 1 the target {p.symbols[int(p.targets[0])]} has the probability {probability:.4f}, and -log {probability:.4f} = "
        f"{terms[0]}. The loss that is differentiated below is the sum over all steps:",
        Code(f"L = sum_t L_t = {total} = {float(n.losses.sum()):.4f}"),
    ]


def _backward(p: Problem, whole: Numbers, few: Problem, n: Numbers, shown: Shown) -> list[Block]:
    T, top = len(p.x), len(p.W) - 1
    slope = "1 - h_t^2" if p.nonlinearity == "tanh" else "1 where z_t > 0, else 0"
    text = (
        "The error goes the same way back. It reaches h_t from two sides: from above (the readout, or the layer above, by U), "
        "since h_t is used at its own step; and from step t+1 (by W), since h_t is used again there. above + later = dL/dh_t. "
        f"From h_t to z_t it is multiplied, entry by entry, by the slope f'(z_t) = {slope}. The computation begins at "
        f"t = {T}, where nothing comes from a later step."
    )
    readout = "V^T (yhat_t - y_t)" if p.has_readout else "yhat_t - y_t"
    blocks: list[Block] = [
        Heading("3. Backward: every delta, and the two paths that lead to it"),
        text,
        Code("dL/do_t = yhat_t - y_t          y_t is one-hot: 1 at the target"),
        Table(
            ["t", f"yhat_t - y_t: {' '.join(few.symbols)}"],
            [[f"{t + 1}", vector(n.error[t])] for t in reversed(range(T))],
        ),
    ]
    for l in reversed(range(top + 1)):  # noqa: E741
        W, z, delta, next_ = (of(letter, l, p) for letter in ("W", "z_t", "delta_t", "delta_{t+1}"))
        above = readout if l == top else f"U^{l + 2}^T delta_t^{l + 2}"
        rows = [
            [f"{t + 1}", vector(n.above[l][t], 4), vector(n.later[l][t], 4), vector(n.slope[l][t], signed=False),
             vector(n.delta[l][t], 4)]
            for t in reversed(range(T))
        ]  # fmt: skip
        blocks.append(Code(f"{delta} = f'({z}) * (above + later)     above = {above}     later = {W}^T {next_}"))
        blocks.append(Table(["t", "above", "later (from t+1)", f"f'({z})", delta], rows))
        if l == top:
            blocks += _entry_of_delta(p, whole, shown)
    return blocks


def _entry_of_delta(p: Problem, n: Numbers, shown: Shown) -> list[Block]:
    l, T, units = len(p.W) - 1, len(p.x), shown.units[-1]  # noqa: E741
    above, later, slope, delta = n.above[l], n.later[l], n.slope[l], n.delta[l]

    def sums(t: int, i: int) -> list[tuple[float, float]]:
        a, b, s = (round(float(v[t, i]), 4) for v in (above, later, slope))
        return [(s * (a + b), float(delta[t, i]))]

    t, i = best([(t, int(i)) for t in range(max(1, T - 1)) for i in units], sums)
    a, b, s, d = (number(v[t, i], 4) for v in (above, later, slope, delta))
    two = " ".join(added([above[t, i], later[t, i]], 4))
    rows = [[f"delta_{t + 1} = f'(z_{t + 1}) * (above + later) =", f"{s} * ({two})", f"= {d}"]]
    if p.has_readout:
        rows.append(
            [
                f"above = (V^T (yhat_{t + 1} - y_{t + 1})) =",
                *products(p.V[:, i], n.error[t], shown.symbols, 4),
                f"= {a}",
            ]
        )
    if t + 1 < T:
        rows.append([f"later = (W^T delta_{t + 2}) =", *products(p.W[l][:, i], delta[t + 1], units, 4), f"= {b}"])
    layer = f" of layer {l + 1}" * (l > 0)
    return [f"Entry {i + 1}{layer} at t = {t + 1}, worked out:", lines(*rows)]


def _sums(p: Problem, whole: Numbers, n: Numbers, shown: Shown, full: bool) -> list[Block]:
    text = (
        "All steps share the weights, so each step has its term in their gradients, and the gradient is the sum over t."
    )
    more = " Each row below is the sum so far, from the last step to the first; the sum at t = 1 is the gradient."
    blocks: list[Block] = [Heading("4. The gradients: sums over time"), text + more * full]
    for l in range(len(p.W)):  # noqa: E741
        dU, dW, db, delta, before = (of(letter, l, p) for letter in ("dU", "dW", "db", "delta_t", "h_{t-1}"))
        terms = f"{dU} = sum_t {delta} ({of('h_t', l - 1, p)})^T{' ' * 10}{dW} = sum_t {delta} ({before})^T"
        blocks.append(Code(f"{terms}\n{db} = sum_t {delta}"))
        factors = {dU: (n.delta[l], n.below[l]), dW: (n.delta[l], n.before[l]), db: (n.delta[l],)}
        blocks.append(_partial_sums({name: sums_from_the_last(*both) for name, both in factors.items()}, full))
        if l == 0:
            blocks += _entry_of_dU(p, whole, shown)
    if not p.has_readout:
        return blocks
    h = of("h_t", len(p.W) - 1, p)
    blocks.append(Code(f"dV = sum_t (yhat_t - y_t) ({h})^T          dc = sum_t (yhat_t - y_t)"))
    last = {"dV": sums_from_the_last(n.error, whole.h[-1][:, shown.units[-1]]), "dc": sums_from_the_last(n.error)}
    return [*blocks, _partial_sums(last, full)]


def _partial_sums(sums: dict[str, Tensor], full: bool) -> Table:
    """Return the sums from step T down to step t, for t = T, ..., 1, with a gap between two steps; or the last alone."""
    rows: list[list[str]] = []
    for t in reversed(range(len(next(iter(sums.values()))) if full else 1)):
        cells = itertools.zip_longest(*(matrix(partial[t]) for partial in sums.values()), fillvalue="")
        rows += [[*[f"{t + 1}" if i == 0 else ""] * full, *line] for i, line in enumerate(cells)] + [[]] * (t > 0)
    return Table([*["t"] * full, *sums], rows)


def _entry_of_dU(p: Problem, n: Numbers, shown: Shown) -> list[Block]:
    read = p.x.argmax(1)
    symbol = int(read.mode().values)
    steps = (read == symbol).nonzero()[:, 0].tolist()

    def sums(i: int, _: int) -> list[tuple[float, float]]:
        return [(sum(round(float(n.delta[0][t, i]), 4) for t in steps), float(n.gradients["dU^1"][i, symbol]))]

    i, _ = best([(int(i), 0) for i in shown.units[0]], sums)
    U, layer = of("dU", 0, p), "^1" * (len(p.W) > 1)
    deltas = " + ".join(f"delta_{t + 1}{layer}[{i + 1}]" for t in steps)
    terms = added([n.delta[0][t, i] for t in steps], 4)
    row = [
        f"{U}[{i + 1}, {p.symbols[symbol]}] = {deltas} =",
        *terms,
        *[f"= {number(n.gradients['dU^1'][i, symbol], 4)}"] * (len(steps) > 1),
    ]
    where = f"x_t has a 1 at {p.symbols[symbol]} only where {p.symbols[symbol]} is read, at t = {', '.join(f'{t + 1}' for t in steps)}"
    return [f"One entry, worked out; {where}:", lines(row)]


def _check(p: Problem, n: Numbers, small: Numbers, shown: Shown, full: bool) -> list[Block]:
    found = differences(p, n)
    worst = max(max(d.from_autograd, d.from_fast_path or 0.0) for d in found)
    gradient = small.gradients["dW^1"]
    row, column = divmod(int(gradient.abs().argmax()), gradient.shape[1])
    i, j = (int(shown.units[0][k]) for k in (row, column))
    weight, e = f"{of('W', 0, p)}[{i + 1},{j + 1}]", 1e-5
    up, down = (moved(p, "dW^1", (i, j), by) for by in (e, -e))
    numbers_ = [
        (f"L with {weight} + e", up), (f"L with {weight} - e", down), ("(the first - the second) / 2e", (up - down) / (2 * e)),
        (f"ours: dL/d{weight} of section 4", n.gradients["dW^1"][i, j]), ("autograd's", by_autograd(p)["dW^1"][i, j]),
    ]  # fmt: skip
    blocks: list[Block] = [
        Heading("5. Is it right?"),
        f"Move one weight, {weight} = {number(p.W[0][i, j])}, by e = 0.00001 up and down, and measure L: the quotient is its "
        "derivative, without any formula of the backward pass.",
        Table([weight, "number"], [[name, f"{float(value):.8f}"] for name, value in numbers_]),
    ]
    if full:
        rows = [
            [d.name if len(p.W) > 1 else d.name.removesuffix("^1"), f"{d.largest:.4f}", f"{d.from_autograd:.1e}",
             "-" if d.from_fast_path is None else f"{d.from_fast_path:.1e}"]
            for d in found
        ]  # fmt: skip
        blocks += [
            "The same network through torch's operations and autograd, and through the fast backward pass of model=manual "
            "(src/models/bptt.py): the largest difference of an entry from the numbers above.",
            Table(["", "largest entry", "from autograd's", "from model=manual's"], rows),
        ]
    verdict = f"{worst:.1e}: {'' if worst < TOLERANCE else 'NOT '}below {TOLERANCE:.0e}."
    what = "" if full else "All deltas and gradients were compared with autograd's and with those of model=manual. "
    return [*blocks, f"{what}The largest difference of all is {verdict}"]


def _update(p: Problem, n: Numbers) -> list[Block]:
    rate, after = updated(p, n.gradients)
    later = compute(after)
    before_L, after_L = float(n.losses.sum()), float(later.losses.sum())
    square = sum(float((gradient**2).sum()) for gradient in n.gradients.values())
    halved = "" if rate == RATE else f" (from {RATE} on, the learning rate is halved until L falls)"
    said = ["".join(p.symbols[int(i)] for i in o.argmax(1)) for o in (n.o, later.o)]
    return [
        Heading("6. One update"),
        f"Every weight is moved against its gradient, w <- w - {rate:g} dL/dw{halved}; then the text is read again.",
        Table(
            ["", "before", "after", "difference"],
            [["L", f"{before_L:.4f}", f"{after_L:.4f}", number(after_L - before_L, 4)], ["predicted", *said, ""]],
        ),
        f"For a small step the difference would be -{rate:g} times the sum of all squared gradients: {number(-rate * square, 4)}. "
        "Training does this again and again, with Adam in place of this plain step.",
    ]


def _reach(p: Problem) -> list[Block]:
    layers = reach(p)
    if len(p.x) < 2:
        return []
    radii = ", ".join(f"rho({of('W', l, p)}) = {one.radius:.3f}" for l, one in enumerate(layers))  # noqa: E741
    header, rows = ["k"], [[f"{k}"] for k in range(len(p.x))]
    for l, one in enumerate(layers):  # noqa: E741
        header += [f"|{of('delta', l, p)}|", "share", f"rho({of('W', l, p)})^k"]
        for k, norm in enumerate(one.norms):
            rows[k] += [f"{norm:.2e}", f"{norm / one.norms[0]:.4f}" if one.norms[0] else "-", f"{one.radius**k:.4f}"]
    return [
        Heading("7. How far the error reaches"),
        "Now the loss of the last step alone, L_T, sent back k steps: |delta| is the length of dL_T/dz_{T-k}, and its share "
        "that of k = 0. Each step back multiplies by W^T and by the slope f', which is at most 1. rho(W), the largest absolute "
        f"eigenvalue of W, tells what W alone does in the long run: about rho^k remains. Here {radii}. Where the share is "
        "near 0, the weights do not learn from this error what was read there: the gradient vanishes.",
        Table(header, rows),
    ]


def _page_path(p: Problem, numbers: Numbers, shown: Shown) -> list[Block]:
    """Return delta_1^2 by its two paths, in the page's meaning of delta (dL/dh); without numbers below three layers."""
    visible = len(p.W) >= 3 and len(p.x) >= 2
    error = (
        f"Error in the page: the path along time. The page prints delta_2^3 and z_2^3 in the first term"
        f"{'' if visible else ' of its formula for delta_1^2'}, a gradient and a slope of layer 3; but W acts along time "
        "within layer 2, so they must read delta_2^2 and z_2^2."
    )
    if not visible:
        return [f"{error} (explain.num_layers=3 shows it on numbers, at two steps or more.)"]
    g = [above + later for above, later in zip(numbers.above, numbers.later, strict=True)]  # dL/dh_t
    slope, two, three = numbers.slope, shown.units[1], shown.units[2]
    by_W, by_U = p.W[1].T @ (slope[1][1] * g[1][1]), p.U[2].T @ (slope[2][0] * g[2][0])
    printed, corrected = p.W[1].T @ (slope[2][1] * g[2][1]) + by_U, by_W + by_U
    rows_ = [
        ("delta_2^2 = dL/dh_2^2", g[1][1][two]),
        ("f'(z_2^2)", slope[1][1][two]),
        ("by W, along time:          W^2^T diag(f'(z_2^2)) delta_2^2", by_W[two]),
        ("", None),
        ("delta_1^3 = dL/dh_1^3", g[2][0][three]),
        ("f'(z_1^3)", slope[2][0][three]),
        ("by U, down from layer 3:   U^3^T diag(f'(z_1^3)) delta_1^3", by_U[two]),
        ("", None),
        ("delta_1^2, the sum of both paths", corrected[two]),
        ("section 3: layer 2, t = 1, above + later", g[1][0][two]),
        ("", None),
        ("as printed, with delta_2^3 and z_2^3 in the first term", printed[two]),
    ]
    rows = [[] if values is None else [name, vector(values, 4)] for name, values in rows_]
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
    gradient = numbers.gradients[f"dU^{top + 1}"]
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
