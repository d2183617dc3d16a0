"""The page that `python -m src.explain` prints: each equation, then its numbers, as text for a terminal or markdown."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from src.worked_example import bptt_example as bptt

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
    """Return the page; `full` adds dV and dc, what each step gives to a gradient, and the tutorial's errors."""
    sheet = Page(lesson, full)
    blocks = [*sheet.network(), *sheet.forward(), *sheet.loss(), *sheet.backward(), *sheet.sums()]
    blocks += [*sheet.check(), *sheet.update(), *sheet.reach()]
    if full or len(sheet.p.W) >= 3:
        blocks += [Heading("8. The tutorial's page, and its errors"), *sheet.page_path()]
    if full:
        return [*blocks, *sheet.page_slope(), *[PAGE_INPUT] * ("".join(sheet.p.symbols) == "ehlo")]
    return [*blocks, MORE]


def vector(values: Tensor, digits: int = 3, signed: bool = True) -> str:
    """Return numbers side by side, all of one width."""
    rounded = (round(float(value), digits) + 0.0 for value in values)  # + 0.0: no -0.000
    return " ".join(f"{value:{' ' if signed else ''}.{digits}f}" for value in rounded)


def matrix(values: Tensor) -> list[str]:
    """Return the rows of a matrix, or of a vector as a column."""
    return [vector(row.reshape(-1)) for row in values]


def number(value: float | Tensor, digits: int = 3) -> str:
    """Return a rounded number, without -0.000."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def added(terms: Iterable[float | Tensor], digits: int = 3) -> list[str]:
    """Return `0.310`, `- 0.560`, `+ 0.386`."""
    texts = [number(term, digits) for term in terms]
    return [texts[0], *(f"- {text[1:]}" if text.startswith("-") else f"+ {text}" for text in texts[1:])]


def products(weights: Tensor, values: Tensor, shown: Tensor, digits: int = 3) -> list[str]:
    """Return `(-0.552)(0.602)`, `+ (-0.382)(0.097)`, ... of the units that are shown, then the rest as a number."""
    texts = [f"+ ({number(weights[i], digits)})({number(values[i], digits)})" for i in shown]
    if others := len(weights) - len(shown):
        rest = weights @ values - weights[shown] @ values[shown]
        texts.append(f"{added([0, rest], digits)[1]} (the other {others})")
    return [texts[0].removeprefix("+ "), *texts[1:]]


Sum = tuple[Iterable[float | Tensor], Iterable[float | Tensor], float | Tensor]  # factors, factors, result


def best(candidates: Iterable[int], sums: Callable[[int], list[Sum]], digits: int) -> int:
    """Return the first candidate with the smallest rounding error in its printed sums."""

    def error(found: Sum) -> float:
        total = sum(float(number(a, digits)) * float(number(b, digits)) for a, b in zip(*found[:2], strict=True))
        return round(abs(float(number(total, digits)) - float(number(found[2], digits))), 6)

    return min(candidates, key=lambda candidate: max(map(error, sums(candidate))))


def lines(*rows: Sequence[str]) -> Code:
    """Return rows of parts as code; a row that is too long goes on below, indented."""
    return Code("\n".join("\n        ".join(wrapped(row, WIDTH - 12)) for row in rows))


LETTERS = """x_t        the input of step t: one-hot, 1 at the place of the character, else 0
U, W, b    the weights of a layer: from below, from its own state one step before, and the bias
z_t, h_t   a layer's sum of these, and its hidden state h_t = f(z_t)
V, c       the readout o_t = V h_t + c; softmax turns o_t into probabilities yhat_t
L          the loss: the sum over the steps of L_t = -log(probability of the target), in nats
delta_t    dL/dz_t: how fast L grows with z_t. delta_t = f'(z_t) * (above + later):
  above    the part of dL/dh_t that comes back at step t: from the readout, or the layer above
  later    the part of dL/dh_t that comes back from step t+1, through W"""
NO_READOUT = (
    "V, c       the readout o_t = V h_t + c; softmax turns o_t",
    "o_t        = h_t of the last layer; softmax turns it",
)
MORE = (
    "explain.level=full adds dV and dc, what each step gives to a gradient, every comparison, and the tutorial's "
    "errors. explain.format=html output=lesson.html makes a page for the browser on which every number can be "
    "touched."
)
PAGE_INPUT = (
    'Error in the page: the input. The page means to read "hello", which over e h l o is [1, 0, 2, 2, 3]; its script '
    'has x_data = [1, 2, 2, 2, 3], which spells "hlllo". (python -m src.explain explain.input=hlllo '
    "explain.target=ohlol follows the misprint, and so does experiment=tutorial.)"
)


class Page:
    """The sections of the page. Indices of layers `l`, steps `t` and units count from 0, and from 1 where printed."""

    def __init__(self, lesson: Lesson, full: bool) -> None:
        self.lesson, self.p, self.full = lesson, lesson.problem, full
        self.n = bptt.compute(self.p)
        self.steps, self.layers, self.top = range(len(self.p.x)), range(len(self.p.W)), len(self.p.W) - 1
        self.units, self.symbols = bptt.shown_units(self.n), bptt.shown_symbols(self.p, self.n)

    def of(self, letter: str, layer: int) -> str:
        """Return `U^2` for layer 1; `U` where there is only one layer, `x_t` for the input."""
        if layer < 0:
            return "x_t"
        return f"{letter}^{layer + 1}" if self.top else letter

    def below(self, layer: int) -> Tensor:
        return self.units[layer - 1] if layer else self.symbols

    def candidates(self, layer: int, steps: Iterable[int]) -> list[int]:
        """Return an index for each step and unit that is shown, as divmod by the layer's size takes it apart."""
        return [t * len(self.p.b[layer]) + int(i) for t in steps for i in self.units[layer]]

    def network(self) -> list[Block]:
        p, lesson, hidden = self.p, self.lesson, len(self.p.b[0])
        layers = f"{len(p.W)} layer{'s' * (len(p.W) > 1)} with {hidden} {p.nonlinearity} unit{'s' * (hidden > 1)}"
        blocks: list[Block] = [
            Heading(f'Backpropagation through time: "{lesson.input}" -> "{lesson.target}"', 1),
            f'A recurrent network of {layers}{" each" * (len(p.W) > 1)} reads the characters of "{lesson.input}" one '
            f'after another and is to predict "{lesson.target}". Numbers are computed in float64 and rounded at the '
            "end, so the last digit of a sum may differ. t counts the steps, from 1. A vector of a step is one line.",
        ]
        if len(p.earlier):
            blocks.append(
                f"Of the text the last {len(p.x)} steps are explained. The {len(p.earlier)} before them are read "
                "first and leave the state h_0; no gradient goes back there, as between two windows of a training."
            )
        if any(len(units) < hidden for units in self.units):
            names = [
                f"{', '.join(f'{i + 1}' for i in self.units[l])}{f' of layer {l + 1}' * bool(self.top)}"
                for l in self.layers  # noqa: E741
            ]
            blocks.append(
                f"Of {hidden} units per layer those with the largest sum_t |delta_t| are shown, in this order: "
                f"{'; '.join(names)}. Every number is computed with all of them."
            )
        if len(self.symbols) < len(p.symbols):
            blocks.append(
                f"Of {len(p.symbols)} symbols {len(self.symbols)} are shown, in this order: "
                f"{' '.join(p.symbols[i] for i in self.symbols)}. The softmax is over all of them."
            )
        blocks.append(Code(LETTERS if p.has_readout else LETTERS.replace(*NO_READOUT)))
        if lesson.command:
            seed = lesson.command[-1].removeprefix("seed=")
            blocks.append(f"The weights are those that the seed {seed} gives to:")
            blocks.append(Code(" \\\n    ".join(wrapped(lesson.command, WIDTH - 10)), "sh"))
        else:
            blocks.append(f"The weights are those of {lesson.source}.")
        if lesson.averaged:
            blocks.append(
                "It was trained on the mean of the L_t (loss.over_time=mean). Here L is their sum, as in the "
                f"tutorial, so every gradient is {len(p.x)} times that of the mean."
            )
        weights: dict[str, list[str]] = {}
        for l, u in enumerate(self.units):  # noqa: E741
            three = (p.U[l][u][:, self.below(l)], p.W[l][u][:, u], p.b[l][u])
            weights |= {self.of(letter, l): matrix(w) for letter, w in zip("UWb", three, strict=True)}
        if p.has_readout:
            weights |= {"V": matrix(p.V[self.symbols][:, self.units[-1]]), "c": matrix(p.c[self.symbols])}
        for names in ([*weights][i : i + 3] for i in range(0, len(weights), 3)):
            blocks.append(Table(names, [*itertools.zip_longest(*(weights[name] for name in names), fillvalue="")]))
        return blocks

    def forward(self) -> list[Block]:
        p, n = self.p, self.n
        blocks: list[Block] = [Heading("1. Forward")]
        for l, u in enumerate(self.units):  # noqa: E741
            U, W, b, z, h, before = (self.of(letter, l) for letter in ("U", "W", "b", "z_t", "h_t", "h_{t-1}"))
            below = self.of("h_t", l - 1)
            blocks.append(Code(f"{z} = {U} {below} + {W} {before} + {b}          {h} = {p.nonlinearity}({z})"))
            if l == 0:
                start = " The state before the first step is zero." * (not len(p.earlier))
                blocks.append(f"x_t is one-hot, so {U} x_t is one column of {U}: that of the character.{start}")
            parts = zip(*(matrix(some[l][:, u]) for some in (n.from_below, n.from_before, n.z, n.h)), strict=True)
            rows = [[f"{t + 1}", *[p.symbols[int(p.x[t].argmax())]] * (l == 0), *row] for t, row in enumerate(parts)]
            blocks.append(Table(["t", *["x_t"] * (l == 0), f"{U} {below}", f"{W} {before}", z, h], rows))
            blocks += self.entry_of_z() if l == 0 else []
        return blocks

    def entry_of_z(self) -> list[Block]:
        p, n, size = self.p, self.n, len(self.p.b[0])
        below, before, z = n.from_below[0], n.from_before[0], n.z[0]

        def sums(candidate: int) -> list[Sum]:
            t, i = divmod(candidate, size)
            found: list[Sum] = [((below[s, i], before[s, i], p.b[0][i]), (1, 1, 1), z[s, i]) for s in (0, t)]
            return [*found, (p.W[0][i], n.before[0][t], before[t, i])]

        t, i = divmod(best(self.candidates(0, self.steps[1:] or self.steps), sums, 3), size)
        rows = []
        for s in sorted({0, t}):
            terms = added([below[s, i], before[s, i], p.b[0][i]])
            result = f"= {number(z[s, i])},   h_{s + 1} = {p.nonlinearity}(z_{s + 1}) = {number(n.h[0][s, i])}"
            rows.append([f"z_{s + 1} = U x_{s + 1} + W h_{s} + b =", *terms, result])
        if t:
            inner = products(p.W[0][i], n.before[0][t], self.units[0])
            rows.append([f"where W h_{t} =", *inner, f"= {number(before[t, i])}"])
        return [f"Entry {i + 1}{' of layer 1' * bool(self.top)}, worked out:", lines(*rows)]

    def loss(self) -> list[Block]:
        p, n, top = self.p, self.n, self.of("h_t", self.top)
        names = " ".join(" " * (5 - columns(p.symbols[i])) + p.symbols[i] for i in self.symbols)
        rows = [
            [f"{t + 1}", p.symbols[int(p.targets[t])], vector(n.o[t, self.symbols]),
             f"{'':7} {vector(n.yhat[t, self.symbols], signed=False)}", p.symbols[int(n.o[t].argmax())],
             number(n.losses[t], 4)]
            for t in self.steps
        ]  # fmt: skip
        terms = [number(loss, 4) for loss in n.losses]
        total = " + ".join(terms if len(terms) <= 8 else [*terms[:3], "...", terms[-1]])
        readout, chance = f"o_t = V {top} + c" if p.has_readout else f"o_t = {top}", number((-n.losses[0]).exp(), 4)
        return [
            Heading("2. The loss"),
            Code(f"{readout}          yhat_t = softmax(o_t)          L_t = -log yhat_t[target_t]"),
            Table(["t", "target", "o_t", f"yhat_t: {names}", "predicted", "L_t"], rows),
            f"At t = 1 the target {rows[0][1]} has the probability {chance}, and -log {chance} = {terms[0]}. The loss "
            "that all gradients below belong to is the sum over the steps:",
            Code(f"L = sum_t L_t = {total} = {number(n.losses.sum(), 4)}"),
        ]

    def backward(self) -> list[Block]:
        p, n = self.p, self.n
        slope = "1 - h_t^2" if p.nonlinearity == "tanh" else "1 where z_t > 0, else 0"
        readout = "V^T (yhat_t - y_t)" if p.has_readout else "yhat_t - y_t"
        errors = [[f"{t + 1}", vector(n.error[t, self.symbols])] for t in reversed(self.steps)]
        blocks: list[Block] = [
            Heading("3. Backward: every delta, and the two paths that lead to it"),
            "h_t is used twice: at its own step, by the readout or by the layer above (through U), and at step t+1 "
            "(through W). So the error comes back to it along two paths, and dL/dh_t = above + later. From h_t to "
            f"z_t it is multiplied, entry by entry, by the slope f'(z_t) = {slope}. The computation begins at t = "
            f"{len(p.x)}, where nothing comes from a later step.",
            Code("dL/do_t = yhat_t - y_t          y_t is one-hot: 1 at the target"),
            *[Table(["t", "yhat_t - y_t"], errors)] * self.full,
        ]
        for l in reversed(self.layers):  # noqa: E741
            W, z, delta, after = (self.of(letter, l) for letter in ("W", "z_t", "delta_t", "delta_{t+1}"))
            above, u = readout if l == self.top else f"U^{l + 2}^T delta_t^{l + 2}", self.units[l]
            rows = [
                [f"{t + 1}", vector(n.above[l][t, u], 4), vector(n.later[l][t, u], 4),
                 vector(n.slope[l][t, u], signed=False), vector(n.delta[l][t, u], 4)]
                for t in reversed(self.steps)
            ]  # fmt: skip
            blocks.append(Code(f"{delta} = f'({z}) * (above + later)\nabove = {above}          later = {W}^T {after}"))
            blocks.append(Table(["t", "above", "later (from t+1)", f"f'({z})", delta], rows))
            blocks += self.entry_of_delta() if l == self.top else []
        return blocks

    def entry_of_delta(self) -> list[Block]:
        p, n, l, size = self.p, self.n, self.top, len(self.p.b[-1])  # noqa: E741
        above, later, slope, delta = n.above[l], n.later[l], n.slope[l], n.delta[l]

        def sums(candidate: int) -> list[Sum]:
            t, i = divmod(candidate, size)
            dh, s = (above[t, i], later[t, i]), slope[t, i]
            return [(dh, (s, s), delta[t, i]), (dh, (1, 1), sum(dh)), (p.V[:, i], n.error[t], above[t, i])]

        t, i = divmod(best(self.candidates(l, self.steps[:-1] or self.steps), sums, 4), size)
        dh = " ".join(added([above[t, i], later[t, i]], 4))
        result = f"{number(slope[t, i], 4)} * ({dh}) = {number(delta[t, i], 4)}"
        rows = [[f"delta_{t + 1} = f'(z_{t + 1}) * (above + later) = {result}"]]
        if p.has_readout:
            terms = products(p.V[:, i], n.error[t], self.symbols, 4)
            rows.append([f"above = V^T (yhat_{t + 1} - y_{t + 1}) =", *terms, f"= {number(above[t, i], 4)}"])
        if t + 1 < len(p.x):
            terms = products(p.W[l][:, i], delta[t + 1], self.units[l], 4)
            rows.append([f"later = W^T delta_{t + 2} =", *terms, f"= {number(later[t, i], 4)}"])
        return [f"Entry {i + 1}{f' of layer {l + 1}' * (l > 0)} at t = {t + 1}, worked out:", lines(*rows)]

    def sums(self) -> list[Block]:
        n = self.n
        text = "All steps share the weights: each step has its term in a gradient, and the gradient is the sum over t."
        more = " Each row below is the sum so far, from the last step to the first; the sum at t = 1 is the gradient."
        blocks: list[Block] = [Heading("4. The gradients: sums over time"), text + more * self.full]
        for l, u in enumerate(self.units):  # noqa: E741
            dU, dW, db, delta, before = (self.of(letter, l) for letter in ("dU", "dW", "db", "delta_t", "h_{t-1}"))
            terms = f"{dU} = sum_t {delta} ({self.of('h_t', l - 1)})^T{' ' * 10}{dW} = sum_t {delta} ({before})^T"
            blocks.append(Code(f"{terms}\n{db} = sum_t {delta}"))
            d = n.delta[l][:, u, None]
            each = {dU: d * n.below[l][:, None, self.below(l)], dW: d * n.before[l][:, None, u], db: d}
            blocks += [self.partial_sums(each), *(self.entry_of_dU() if l == 0 else [])]
        if not (self.full and self.p.has_readout):
            return blocks
        e, h = n.error[:, self.symbols, None], self.of("h_t", self.top)
        blocks.append(Code(f"dV = sum_t (yhat_t - y_t) ({h})^T          dc = sum_t (yhat_t - y_t)"))
        return [*blocks, self.partial_sums({"dV": e * n.h[-1][:, None, self.units[-1]], "dc": e})]

    def partial_sums(self, terms: dict[str, Tensor]) -> Table:
        """Return the sums from step T down to step t, for t = T, ..., 1, with a gap between; or the complete ones."""
        sums = {name: each.flip(0).cumsum(0).flip(0) for name, each in terms.items()}
        rows: list[list[str]] = []
        for t in reversed(self.steps if self.full else (0,)):
            cells = zip(*(matrix(partial[t]) for partial in sums.values()), strict=True)
            rows += [[*[f"{t + 1}" if i == 0 else ""] * self.full, *line] for i, line in enumerate(cells)]
            rows += [[]] * (t > 0)
        return Table([*["t"] * self.full, *sums], rows)

    def entry_of_dU(self) -> list[Block]:
        read, delta = self.p.x.argmax(1), self.n.delta[0]
        symbol = int(read.mode().values)
        steps, name = (read == symbol).nonzero()[:, 0], self.p.symbols[symbol]
        gradient, ones = self.n.gradients["dU^1"][:, symbol], torch.ones(len(steps))
        i = best(self.units[0].tolist(), lambda i: [(delta[steps, i], ones, gradient[i])], 4)
        layer, times = "^1" * bool(self.top), [int(t) + 1 for t in steps]
        deltas = " + ".join(f"delta_{t}{layer}[{i + 1}]" for t in times).split(" ")
        terms = ["=", *added(delta[steps, i], 4)] if len(times) > 1 else []
        row = [f"dU{layer}[{i + 1},{name}] =", *deltas, *terms]
        where = f"x_t is 1 at {name} only where {name} is read, at t = {', '.join(map(str, times))}"
        return [f"One entry, worked out; {where}:", lines([*row, f"= {number(gradient[i], 4)}"])]

    def check(self) -> list[Block]:
        p, n = self.p, self.n
        found = bptt.differences(p, n)
        worst = max(max(d.from_autograd, d.from_fast_path or 0.0) for d in found)
        dW, u = n.gradients["dW^1"], self.units[0]
        i, j = (int(u[k]) for k in divmod(int(dW[u][:, u].abs().argmax()), len(u)))
        weight, e = f"{self.of('W', 0)}[{i + 1},{j + 1}]", 1e-5
        up, down = (bptt.moved(p, "dW^1", (i, j), by) for by in (e, -e))
        measured: list[tuple[str, float | Tensor]] = [
            (f"L with {weight} + e", up), (f"L with {weight} - e", down),
            ("(the first - the second) / 2e", (up - down) / (2 * e)),
            (f"ours, d{weight} of section 4", dW[i, j]), ("autograd's", bptt.by_autograd(p)["dW^1"][i, j]),
        ]  # fmt: skip
        blocks: list[Block] = [
            Heading("5. Is it right?"),
            f"Move one weight, {weight} = {number(p.W[0][i, j])}, by e = 0.00001 up and down, and measure L: the "
            "quotient is its derivative, without any formula of the backward pass.",
            Table([weight, "number"], [[name, number(value, 8)] for name, value in measured]),
        ]
        if self.full:
            rows = [
                [d.name if self.top else d.name.removesuffix("^1"), f"{d.largest:.4f}", f"{d.from_autograd:.1e}",
                 "-" if d.from_fast_path is None else f"{d.from_fast_path:.1e}"]
                for d in found
            ]  # fmt: skip
            blocks.append(Table(["", "largest entry", "from autograd's", "from model=manual's"], rows))
        verdict = f"{worst:.1e}: {'' if worst < TOLERANCE else 'NOT '}below {TOLERANCE:.0e}."
        what = "All deltas and gradients, compared with autograd's and with the fast backward pass of model=manual"
        return [*blocks, f"{what} (src/models/bptt.py): The largest difference of all is {verdict}"]

    def update(self) -> list[Block]:
        n, (rate, after) = self.n, bptt.updated(self.p, self.n.gradients)
        new = bptt.compute(after)
        L, new_L = float(n.losses.sum()), float(new.losses.sum())
        square = sum(float((gradient**2).sum()) for gradient in n.gradients.values())
        halved = "" if rate == bptt.RATE else f" (from {bptt.RATE} on, the learning rate is halved until L falls)"
        said = ["".join(self.p.symbols[int(i)] for i in o.argmax(1)) for o in (n.o, new.o)]
        rows = [["L", number(L, 4), number(new_L, 4), number(new_L - L, 4)], ["predicted", *said, ""]]
        return [
            Heading("6. One update"),
            f"Every weight is moved against its gradient, w <- w - {rate:g} dL/dw{halved}; then the text is read "
            "again.",
            Table(["", "before", "after", "difference"], rows),
            f"For a small step the difference would be -{rate:g} times the sum of all squared gradients: "
            f"{number(-rate * square, 4)}. Training repeats this, with its optimizer in place of this step.",
        ]

    def reach(self) -> list[Block]:
        layers = bptt.reach(self.p)
        radii = ", ".join(f"rho({self.of('W', l)}) = {radius:.3f}" for l, (radius, _) in enumerate(layers))  # noqa: E741
        lower = " In a lower layer it also comes back through the W of the layers above it." * bool(self.top)
        header, rows = ["k"], [[f"{k}"] for k in self.steps]
        for l, (radius, norms) in enumerate(layers):  # noqa: E741
            header += [*[f"|{self.of('delta', l)}|"] * (not self.top), self.of("share", l)]
            header.append(f"rho({self.of('W', l)})^k")
            for k, norm in enumerate(norms):
                share = number(norm / norms[0], 4) if norms[0] else "-"
                rows[k] += [*[f"{norm:.2e}"] * (not self.top), share, number(radius**k, 4)]
        return [
            Heading("7. How far the error reaches"),
            "The loss of the last step alone, L_T, sent back k steps: |delta| is the length of dL_T/dz_{T-k}; its "
            "share is that of k = 0. Each step back multiplies by W^T and by the slope f', which is at most 1. rho(W), "
            "the largest absolute eigenvalue of W, tells what W alone leaves in the long run: about rho^k; over a few "
            f"steps its other directions and f' count as well. Here {radii}.{lower} Where the share is near 0, nothing "
            "is learned from this error about what was read there: the gradient vanishes.",
            Table(header, rows),
        ]

    def page_path(self) -> list[Block]:
        """Return delta_1^2 by its two paths, in the page's meaning of delta (dL/dh); below three layers in words."""
        p, n = self.p, self.n
        visible = len(p.W) >= 3 and len(p.x) >= 2
        error = (
            "Error in the page: the path along time. The page prints delta_2^3 and z_2^3 in the first term"
            f"{'' if visible else ' of its formula for delta_1^2'}, a gradient and a slope of layer 3; but W acts "
            "along time within layer 2, so they must read delta_2^2 and z_2^2."
        )
        if not visible:
            return [f"{error} (explain.num_layers=3 shows it on numbers, at two steps or more.)"]
        g = [above + later for above, later in zip(n.above, n.later, strict=True)]  # dL/dh_t
        slope, two, three = n.slope, self.units[1], self.units[2]
        by_W, by_U = p.W[1].T @ (slope[1][1] * g[1][1]), p.U[2].T @ (slope[2][0] * g[2][0])
        as_printed, corrected = p.W[1].T @ (slope[2][1] * g[2][1]) + by_U, by_W + by_U
        named = [
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
            ("as printed, with delta_2^3 and z_2^3 in the first term", as_printed[two]),
        ]
        rows = [[] if values is None else [name, vector(values, 4)] for name, values in named]
        off = f"As printed, delta_1^2 is off by up to {_distance(as_printed, g[1][0])}; corrected, by"
        return [
            "The formula for delta_1^2, layer 2 at step 1. The page calls dL/dh by the name delta (ours is dL/dz = "
            "f'(z) * dL/dh); in its meaning, with the first term corrected and W and U numbered by layer:",
            Code(
                "delta_1^2 = W^2^T diag(f'(z_2^2)) delta_2^2  +  U^3^T diag(f'(z_1^3)) delta_1^3\n"
                "            the path along time            the path down from layer 3"
            ),
            Table(["the page's delta, dL/dh", "numbers"], rows),
            f"{error} {off} {_distance(corrected, g[1][0])}.",
        ]

    def page_slope(self) -> list[Block]:
        """Return dL/dU of the top layer with the page's delta, as printed and corrected."""
        n, top = self.n, self.top
        g, gradient = n.above[top] + n.later[top], n.gradients[f"dU^{top + 1}"]
        off = _distance(g.T @ n.below[top], gradient)
        corrected = _distance((n.slope[top] * g).T @ n.below[top], gradient)
        layer, input_ = (f"^{top + 1}", f"h_t^{top}") if top else ("", "x_t")
        terms = f"f'(z_t{layer}) * delta_t{layer} ({input_})^T"
        return [
            Code(f"dL/dU{layer} = sum_t {terms}          (delta in the page's meaning)"),
            "Error in the page: dL/dU without the slope. The page's delta is dL/dh, and it is used in dL/dU as if it "
            f"were dL/dz. As printed, without the factor f', dL/dU{layer} is off by up to {off}; with it, by "
            f"{corrected}.",
        ]


def _distance(one: Tensor, other: Tensor) -> str:
    largest = float((one - other).abs().max())
    return f"{largest:.4f}" if largest >= 1e-4 else f"{largest:.1e}" if largest else "0"
