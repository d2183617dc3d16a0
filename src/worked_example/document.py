"""A page of headings, prose, equations and tables of numbers, as text for a terminal or as markdown."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from src.worked_example.bptt_example import Difference, Problem, WrittenOut

WIDTH = 100  # columns of a terminal
INDENT, GAP = " ", "   "  # before a table, and between its columns


class Heading(NamedTuple):
    """What comes next."""

    text: str
    level: int = 2


class Prose(NamedTuple):
    """Sentences."""

    text: str


class Equation(NamedTuple):
    """The same equation twice: as a terminal shows it, and in LaTeX."""

    plain: str
    latex: str


class Command(NamedTuple):
    """A command of a shell, word by word, not yet quoted."""

    words: Sequence[str]


class Table(NamedTuple):
    """Cells of text; an empty row is a gap. Where it is too wide, it goes on below with its first column repeated."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Block = Heading | Prose | Equation | Command | Table


def as_text(blocks: Iterable[Block], width: int = WIDTH) -> str:
    """Return the page for a terminal, no line longer than `width` (but for a single cell that is)."""
    return "\n\n".join("\n".join(line.rstrip() for line in _text(block, width)) for block in blocks) + "\n"


def as_markdown(blocks: Iterable[Block]) -> str:
    """Return the page in GitHub's markdown, its equations between dollars."""
    return "\n\n".join("\n".join(_markdown(block)) for block in blocks) + "\n"


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for each Chinese character, say, none for an accent."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def visible(text: str) -> str:
    """Return a text whose blanks are seen, one by one, in cells."""
    return text.replace(" ", "␣")


def wrapped(words: Iterable[str], width: int) -> list[str]:
    """Return lines of at most `width` columns, a blank between two words; a word that is wider has a line alone."""
    lines: list[str] = []
    for word in words:
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _text(block: Block, width: int) -> list[str]:
    if isinstance(block, Heading):
        return [block.text, ("=" if block.level == 1 else "-") * columns(block.text)]
    if isinstance(block, Prose):
        return wrapped(block.text.split(" "), width)
    if isinstance(block, Command):
        first, *more = wrapped(map(shlex.quote, block.words), width - 10)
        return " \\\n        ".join([f"    {first}", *more]).splitlines()
    if isinstance(block, Equation):
        return [f"    {line}" for line in block.plain.splitlines()]
    lines: list[str] = []
    for group in _fitting(block, width):
        lines += [""] * bool(lines) + _grid(block, group)
    return lines


def _widths(table: Table) -> list[int]:
    return [max(map(columns, column)) for column in zip(table.header, *filter(None, table.rows), strict=True)]


def _fitting(table: Table, width: int) -> list[list[int]]:
    """Which columns stand side by side; a narrow first one, which tells the rows apart, leads each group."""
    widths = _widths(table)
    lead = [0] if widths[0] <= 10 else []
    groups = [[0]]
    for column in range(1, len(widths)):
        beside = [*groups[-1], column]
        if len(INDENT) + sum(widths[c] for c in beside) + len(GAP) * (len(beside) - 1) <= width:
            groups[-1] = beside
        else:
            groups.append([*lead, column])
    return groups


def _grid(table: Table, shown: list[int]) -> list[str]:
    widths = _widths(table)
    rows = [table.header, ["-" * width for width in widths], *table.rows]
    padded = [[row[c] + " " * (widths[c] - columns(row[c])) for c in shown] if row else [] for row in rows]
    return [INDENT + GAP.join(cells) if cells else "" for cells in padded]


def _markdown(block: Block) -> list[str]:
    if isinstance(block, Heading):
        return [f"{'#' * block.level} {_literal(block.text)}"]
    if isinstance(block, Prose):
        return [_literal(block.text)]
    if isinstance(block, Command):
        return ["```sh", shlex.join(block.words), "```"]
    if isinstance(block, Equation):
        return ["$$", block.latex, "$$"]
    header = [_literal(re.sub(r"\s+", " ", cell)).replace("|", "\\|") for cell in block.header]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(block.header)}"]
    for row in filter(None, block.rows):
        cells = [re.sub(r"\s+", " ", cell.strip()).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(map(_span, cells))} |")
    return lines


def _literal(text: str) -> str:
    """Text whose backticks open no code."""
    return text.replace("`", r"\`")


def _span(cell: str) -> str:
    """A cell as code; one that has a backtick of its own stands between two."""
    return f"`` {cell} ``" if "`" in cell else f"`{cell}`" if cell else ""


# ---- Where the tutorial's page slips, shown on the numbers at hand: what it prints and what it means.

PAGE_INPUT = (1, 2, 2, 2, 3)  # x_data of the page's script, over e h l o


def slips(symbols: str, p: Problem, found: WrittenOut) -> list[Block]:
    """Return the section on the page's formulas and slips; delta_1^2 on numbers where there are three layers."""
    blocks: list[Block] = [
        Heading("4. The tutorial's page, and its slips"),
        *(_delta_of_two_paths(p, found) if len(p.W) >= 3 and len(p.x) >= 2 else [_path_in_words()]),
        *_lost_slope(p, found),
    ]
    if symbols == "ehlo":
        spelled = "".join(symbols[i] for i in PAGE_INPUT)
        blocks.append(
            Prose(
                f'Slip: the input. The page sets out to read "hello", which over e h l o is [1, 0, 2, 2, 3]; its '
                f'script has x_data = {list(PAGE_INPUT)}, which spells "{spelled}". (python -m src.explain '
                f"explain.input={spelled} follows the misprint, and so does experiment=tutorial.)"
            )
        )
    return blocks


PATH = (
    "Slip: the path along time. The page prints delta_2^3 and z_2^3 in the first term{where}, an error and a slope of "
    "layer 3; but W goes along time within layer 2, so they must read delta_2^2 and z_2^2."
)


def _path_in_words() -> Block:
    told = PATH.format(where=" of its formula for delta_1^2")
    return Prose(f"{told} (explain.num_layers=3 shows it on numbers, at two steps or more.)")


def _delta_of_two_paths(p: Problem, found: WrittenOut) -> list[Block]:
    """delta_1^2 by its two paths, in the page's meaning of delta: dL/dh."""
    g = [above + later for above, later in zip(found.above, found.later, strict=True)]  # dL/dh_t
    W, U = p.W[1], p.U[2]
    by_W, by_U = W.T @ (found.slope[1][1] * g[1][1]), U.T @ (found.slope[2][0] * g[2][0])
    printed = W.T @ (found.slope[2][1] * g[2][1]) + by_U
    rows = [
        ["delta_2^2 = dL/dh_2^2", _row(g[1][1])],
        ["f'(z_2^2)", _row(found.slope[1][1])],
        ["by W, along time:          W^2^T diag(f'(z_2^2)) delta_2^2", _row(by_W)],
        [],
        ["delta_1^3 = dL/dh_1^3", _row(g[2][0])],
        ["f'(z_1^3)", _row(found.slope[2][0])],
        ["by U, down from layer 3:   U^3^T diag(f'(z_1^3)) delta_1^3", _row(by_U)],
        [],
        ["delta_1^2, the sum of both paths", _row(by_W + by_U)],
        ["section 2: layer 2, t = 1, from above + from t+1", _row(g[1][0])],
        [],
        ["as printed, with delta_2^3 and z_2^3 in the first term", _row(printed)],
    ]
    return [
        Prose(
            "The formula for delta_1^2, layer 2 at step 1. The page calls dL/dh by the name delta (ours is dL/dz = "
            "f'(z) * dL/dh); in its meaning, with the first term mended and W and U told apart by layer:"
        ),
        Equation(
            "delta_1^2 = W^2^T diag(f'(z_2^2)) delta_2^2  +  U^3^T diag(f'(z_1^3)) delta_1^3\n"
            "            the path along time            the path down from layer 3",
            r"\delta_1^2 = \underbrace{(W^2)^T \mathrm{diag}(f'(z_2^2))\, \delta_2^2}_{\text{along time}} + "
            r"\underbrace{(U^3)^T \mathrm{diag}(f'(z_1^3))\, \delta_1^3}_{\text{down from layer 3}}",
        ),
        Table(["the page's delta, dL/dh", "numbers"], rows),
        Prose(
            f"{PATH.format(where='')} As printed, delta_1^2 is off by up to "
            f"{_off(printed, g[1][0])}; mended, by {_off(by_W + by_U, g[1][0])}."
        ),
    ]


def _lost_slope(p: Problem, found: WrittenOut) -> list[Block]:
    """dL/dU of the top layer with the page's delta, as printed."""
    top = len(p.W) - 1
    below = p.x if top == 0 else found.h[top - 1]
    g = found.above[top] + found.later[top]
    truth = found.gradients()[f"dU^{top + 1}"]
    mended = (found.slope[top] * g).T @ below
    layer, input_ = (f"^{top + 1}", f"h_t^{top}") if top else ("", "x_t")
    return [
        Equation(
            f"dL/dU{layer} = sum_t f'(z_t{layer}) * delta_t{layer} ({input_})^T          (delta in the page's meaning)",
            rf"\frac{{\partial L}}{{\partial U{layer}}} = \sum_t \left(f'(z_t{layer}) \odot \delta_t{layer}\right) "
            rf"({input_})^T",
        ),
        Prose(
            "Slip: dL/dU without the slope. The page's delta is dL/dh, and it puts that into dL/dU as if it were "
            f"dL/dz. As printed, without the factor f', dL/dU{layer} is off by up to {_off(g.T @ below, truth)}; with "
            f"it, by {_off(mended, truth)}."
        ),
    ]


def _row(values: Tensor) -> str:
    return " ".join(f"{round(float(value), 4) + 0.0: .4f}" for value in values)


def _off(one: Tensor, other: Tensor) -> str:
    largest = float((one - other).abs().max())
    return f"{largest:.4f}" if largest >= 1e-4 else f"{largest:.1e}" if largest else "0"


# ---- Backpropagation through time as a page to read: each equation, then its numbers.

BELOW = 1e-12  # what rounding in float64 stays far under


def page(
    word: str, target: str, symbols: str, seed: int, p: Problem, found: WrittenOut, held: Sequence[Difference]
) -> list[Block]:
    """Return the whole page.

    Args:
        word, target, symbols: what is read, what is to be predicted, and the vocabulary in the order of its ids.
        seed: of the weights.
        p, found, held: the network, its numbers, and how far they are from autograd's.
    """
    return [
        *_start(word, target, symbols, seed, p),
        *_forward(visible(word), visible(target), visible(symbols), p, found),
        *_backward(word, p, found),
        *_sums(word, p, found),
        *slips(symbols, p, found),
        *_held(held, len(p.W)),
    ]


def vector(values: Tensor, digits: int = 3, signed: bool = True) -> str:
    """Numbers side by side, their points below one another."""
    rounded = (round(float(value), digits) + 0.0 for value in values)  # + 0.0: no -0.000
    return " ".join(f"{value:{' ' if signed else ''}.{digits}f}" for value in rounded)


def matrix(values: Tensor, digits: int = 3) -> list[str]:
    """A matrix, or a vector as a column: a line a row."""
    return [vector(row.reshape(-1), digits) for row in values]


def of(letter: str, layer: int, p: Problem) -> str:
    """`U^2`; where there is one layer, `U`."""
    return f"{letter}^{layer + 1}" if len(p.W) > 1 else letter


def side_by_side(parts: dict[str, list[str]], first: tuple[str, list[str]] | None = None) -> Table:
    """Matrices next to each other, a name above each."""
    if first is not None:
        parts = dict([first]) | parts
    height = max(map(len, parts.values()))
    columns = [rows + [""] * (height - len(rows)) for rows in parts.values()]
    return Table(list(parts), [list(row) for row in zip(*columns, strict=True)])


def _start(word: str, target: str, symbols: str, seed: int, p: Problem) -> list[Block]:
    layers, hidden = len(p.W), len(p.b[0])
    given = [f"model.num_layers={layers}"] * (layers > 1)
    given += [f"model.nonlinearity={p.nonlinearity}"] * (p.nonlinearity != "tanh")
    usual = {"input": "hello", "target": "ohlol", "symbols": "ehlo"}  # conf/data/hello.yaml
    said = {"input": word, "target": target, "symbols": symbols}
    given += [f"data.{key}={said[key]}" for key in usual if said[key] != usual[key]]
    which = "t counts the steps, from 1. A vector of a step stands on one line."
    parts: dict[str, list[str]] = {}
    for l in range(layers):  # noqa: E741  # the equations' letter
        parts |= {of("U", l, p): matrix(p.U[l]), of("W", l, p): matrix(p.W[l]), of("b", l, p): matrix(p.b[l])}
    parts |= {"V": matrix(p.V), "c": matrix(p.c)}
    return [
        Heading(f'Backpropagation through time: "{word}" -> "{target}"', 1),
        Prose(
            f"A recurrent network of {layers} layer{'s' * (layers > 1)} with {hidden} {p.nonlinearity} unit"
            f"{'s' * (hidden > 1)}{' each' * (layers > 1)} reads the characters of \"{word}\" one after another and is "
            f'to say "{target}". Every number is in float64. {which}'
        ),
        Prose(f"The weights are those that the seed {seed} gives to:"),
        Command(
            ["python", "-m", "src.train", "model=manual", "model.readout=linear", f"model.hidden_size={hidden}", *given,
             f"seed={seed}"]
        ),
        *(side_by_side(dict(list(parts.items())[i : i + 3])) for i in range(0, len(parts), 3)),
    ]  # fmt: skip


def _forward(word: str, target: str, symbols: str, p: Problem, found: WrittenOut) -> list[Block]:
    blocks: list[Block] = [Heading("1. Forward")]
    for l in range(len(p.W)):  # noqa: E741
        U, W, b, z, h = (of(letter, l, p) for letter in ("U", "W", "b", "z_t", "h_t"))
        f = p.nonlinearity
        below = "x_t" if l == 0 else of("h_t", l - 1, p)
        before = of("h_{t-1}", l, p)
        tex = {"tanh": r"\tanh", "relu": r"\mathrm{relu}"}[f]
        blocks.append(
            Equation(
                f"{z} = {U} {below} + {W} {before} + {b}          {h} = {f}({z})",
                f"{_tex(z)} = {_tex(U)}\\, {_tex(below)} + {_tex(W)}\\, {_tex(before)} + {_tex(b)} \\qquad "
                f"{_tex(h)} = {tex}({_tex(z)})",
            )
        )
        if l == 0:
            picks = f"x_t is one-hot: {U} x_t picks one column of {U}, that of the character among {' '.join(symbols)}."
            blocks.append(Prose(f"{picks} The state before the first step is zero."))
        header = ["t", "reads", f"{W} {before}", z, h]
        rows = [
            [f"{t + 1}", word[t], vector(p.W[l] @ found.h[l][t - 1] if t else 0 * p.b[l]), vector(z_t), vector(h_t)]
            for t, (z_t, h_t) in enumerate(zip(found.z[l], found.h[l], strict=True))
        ]
        if l > 0:  # a layer above reads what is below it
            header[1], rows = below, [[r[0], vector(found.h[l - 1][t]), *r[2:]] for t, r in enumerate(rows)]
        blocks.append(Table(header, rows))
    top = of("h_t", len(p.W) - 1, p)
    blocks.append(
        Equation(
            f"o_t = V {top} + c          yhat_t = softmax(o_t)          L_t = -log yhat_t[target_t]",
            f"o_t = V {_tex(top)} + c \\qquad \\hat y_t = \\mathrm{{softmax}}(o_t) \\qquad "
            r"L_t = -\log \hat y_t[\mathrm{target}_t]",
        )
    )
    names = " ".join(" " * (5 - columns(symbol)) + symbol for symbol in symbols)
    blocks.append(
        Table(
            ["t", "target", "o_t", f"yhat_t: {names}", "says", "L_t"],
            [
                [f"{t + 1}", target[t], vector(o_t), f"{'':7} {vector(found.yhat[t], signed=False)}",
                 symbols[int(o_t.argmax())], f"{float(found.losses[t]):.4f}"]
                for t, o_t in enumerate(found.o)
            ],
        )
    )  # fmt: skip
    L = float(found.losses.sum())
    terms = [f"{float(loss):.4f}" for loss in found.losses]
    total = " + ".join(terms if len(terms) <= 8 else [*terms[:3], "...", terms[-1]])
    blocks.append(Equation(f"L = sum_t L_t = {total} = {L:.4f}", rf"L = \sum_t L_t = {total} = {L:.4f}"))
    return blocks


def _backward(word: str, p: Problem, found: WrittenOut) -> list[Block]:
    T, top = len(word), len(p.W) - 1
    blocks: list[Block] = [
        Heading("2. Backward: every delta, and the two ways that an error takes to it"),
        Prose(
            "delta_t = dL/dz_t. An error comes to step t from above (the readout, or the layer on top, by U) and from "
            "step t+1 (by W). The two are added and multiplied, entry by entry, with the slope f'(z_t)"
            + (" = 1 - h_t^2." if p.nonlinearity == "tanh" else ": 1 where z_t > 0, else 0.")
            + f" The walk begins at t = {T}, where nothing comes from later."
        ),
        Equation("dL/do_t = yhat_t - y_t", r"\frac{\partial L}{\partial o_t} = \hat y_t - y_t"),
        Table(["t", "yhat_t - y_t"], [[f"{t + 1}", vector(found.error[t])] for t in reversed(range(T))]),
    ]
    for l in reversed(range(top + 1)):  # noqa: E741
        W, z, delta, later = of("W", l, p), of("z_t", l, p), of("delta_t", l, p), of("delta_{t+1}", l, p)
        above = "V^T (yhat_t - y_t)" if l == top else f"U^{l + 2}^T delta_t^{l + 2}"
        above_tex = r"V^T (\hat y_t - y_t)" if l == top else rf"(U^{{{l + 2}}})^T \delta_t^{{{l + 2}}}"
        W_T, W_tex = (f"{W}^T", f"({_tex(W)})^T" if len(p.W) > 1 else "W^T")
        blocks.append(
            Equation(
                f"{delta} = f'({z}) * ( {above} + {W_T} {later} )",
                rf"{_tex(delta)} = f'({_tex(z)}) \odot \left( {above_tex} + {W_tex}\, {_tex(later)} \right)",
            )
        )
        blocks.append(
            Table(
                ["t", "from above", "from t+1", f"f'({z})", delta],
                [
                    [f"{t + 1}", vector(found.above[l][t], 4), vector(found.later[l][t], 4),
                     vector(found.slope[l][t], signed=False), vector(found.delta[l][t], 4)]
                    for t in reversed(range(T))
                ],
            )
        )  # fmt: skip
    return blocks


def _sums(word: str, p: Problem, found: WrittenOut) -> list[Block]:
    T, top = len(word), len(p.W) - 1
    blocks: list[Block] = [
        Heading("3. The gradients: sums over time"),
        Prose(
            "All steps share U, W, b, V and c, so each step has its term in their gradients. Each row below is the sum "
            "so far, on the walk from the last step to the first; what stands at t = 1 is the gradient."
        ),
    ]
    for l in range(top + 1):  # noqa: E741
        delta, below, before = (
            of("delta_t", l, p),
            "x_t" if l == 0 else of("h_t", l - 1, p),
            of("h_{t-1}", l, p),
        )
        names = [f"d{letter}^{l + 1}" for letter in "UWb"]
        shown = [of(f"d{letter}", l, p) for letter in "UWb"]
        blocks.append(
            Equation(
                f"{shown[0]} = sum_t {delta} ({below})^T{' ' * 10}{shown[1]} = sum_t {delta} ({before})^T\n"
                f"{shown[2]} = sum_t {delta}",
                rf"{_tex(shown[0])} = \sum_t {_tex(delta)} ({_tex(below)})^T \qquad {_tex(shown[1])} = \sum_t "
                rf"{_tex(delta)} ({_tex(before)})^T \qquad {_tex(shown[2])} = \sum_t {_tex(delta)}",
            )
        )
        blocks.append(_partial_sums(dict(zip(shown, (found.sums[name] for name in names), strict=True)), T))
    h = of("h_t", top, p)
    blocks.append(
        Equation(
            f"dV = sum_t (yhat_t - y_t) ({h})^T          dc = sum_t (yhat_t - y_t)",
            rf"dV = \sum_t (\hat y_t - y_t) ({_tex(h)})^T \qquad dc = \sum_t (\hat y_t - y_t)",
        )
    )
    blocks.append(_partial_sums({name: found.sums[name] for name in ("dV", "dc")}, T))
    return blocks


def _partial_sums(parts: dict[str, Tensor], T: int) -> Table:
    """The sums as far as step t, from T down to 1, a gap between two steps."""
    rows: list[list[str]] = []
    for t in reversed(range(T)):
        block = zip(*(matrix(partial[t]) for partial in parts.values()), strict=True)
        rows += [[f"{t + 1}" if i == 0 else "", *row] for i, row in enumerate(block)] + [[]] * (t > 0)
    return Table(["t", *parts], rows)


def _held(held: Sequence[Difference], layers: int) -> list[Block]:
    worst = max(max(d.from_autograd, d.from_fast_path or 0.0) for d in held)
    verdict = f"below {BELOW:.0e}" if worst < BELOW else f"NOT below {BELOW:.0e}"
    return [
        Heading("5. Held against autograd"),
        Prose(
            "The same network through torch.nn.RNN and autograd, and through the fast backward pass of model=manual "
            "(src/models/bptt.py): the largest difference of an entry from the numbers above."
        ),
        Table(
            ["", "largest entry", "from autograd's", "from model=manual's"],
            [
                [d.name if layers > 1 else d.name.removesuffix("^1"), f"{d.largest:.4f}", f"{d.from_autograd:.1e}",
                 "-" if d.from_fast_path is None else f"{d.from_fast_path:.1e}"]
                for d in held
            ],
        ),
        Prose(f"The largest difference of all is {worst:.1e}: {verdict}."),
    ]  # fmt: skip


def _tex(name: str) -> str:
    """`delta_{t+1}^2` as LaTeX."""
    base, _, layer = name.partition("^")
    base = base.replace("delta", r"\delta")
    return f"{base}^{{{layer}}}" if layer else base
