"""Where the tutorial's page slips, shown on the numbers at hand: what it prints and what it means."""

from __future__ import annotations

from torch import Tensor

from src.analysis.sheet import Block, Equation, Heading, Prose, Table
from src.analysis.written_out import Problem, WrittenOut

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
