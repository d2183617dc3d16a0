"""Backpropagation through time of one short sequence, one line an equation, with every term kept apart.

    z_t^l = U^l h_t^{l-1} + W^l h_{t-1}^l + b^l,   h_t^l = f(z_t^l),   h_t^0 = x_t,   h_0^l = 0
    o_t = V h_t^L + c,   yhat_t = softmax(o_t),   L_t = -log yhat_t[target_t],   L = sum_t L_t
    delta_t^l = f'(z_t^l) * (above_t^l + later_t^l)
        above_t^l = U^{l+1 T} delta_t^{l+1},   at the top layer V^T (yhat_t - y_t)
        later_t^l = W^{l T} delta_{t+1}^l,     zero at the last step
    dL/dU^l = sum_t delta_t^l (h_t^{l-1})^T    dL/dW^l = sum_t delta_t^l (h_{t-1}^l)^T    dL/db^l = sum_t delta_t^l
    dL/dV = sum_t (yhat_t - y_t) (h_t^L)^T     dL/dc = sum_t (yhat_t - y_t)

`differences` compares it with autograd and the fast path. Indices of layers and steps count from 0; names of numbers
(`dU^1`) count from 1, as the equations do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from src.config.schema import ExplainOptions
from src.models.convert import read_layers
from src.models.kernels import split
from src.models.language_model import LanguageModel
from src.models.manual import ManualRNN, record_deltas


@dataclass
class Problem:
    """A network and a sequence: x (time, input) one-hot, targets (time,), U, W, b of each layer, the readout's V, c."""

    model: LanguageModel
    recurrence: ManualRNN
    x: Tensor
    targets: Tensor
    U: list[Tensor]
    W: list[Tensor]
    b: list[Tensor]
    V: Tensor
    c: Tensor
    nonlinearity: str


@dataclass
class Numbers:
    """Every number of a forward and a backward pass; a list has one (time, hidden) a layer."""

    z: list[Tensor]
    h: list[Tensor]
    o: Tensor
    yhat: Tensor
    losses: Tensor
    error: Tensor  # dL/do_t = yhat_t - y_t
    above: list[Tensor]
    later: list[Tensor]
    slope: list[Tensor]
    delta: list[Tensor]
    sums: dict[str, Tensor]  # dU^1, ..., dV, dc: (time, ...); entry t is the sum of the terms of steps t .. T

    def gradients(self) -> dict[str, Tensor]:
        """Return the complete sums."""
        return {name: sums[0] for name, sums in self.sums.items()}

    def compared(self) -> dict[str, Tensor]:
        """Return every number that `differences` compares: dL/dh_t and delta_t of each layer, and the gradients."""
        found: dict[str, Tensor] = {}
        for l, (above, later, delta) in enumerate(zip(self.above, self.later, self.delta, strict=True), 1):  # noqa: E741
            found |= {f"dL/dh_t^{l}": above + later, f"delta_t^{l}": delta}
        return found | self.gradients()


def build_problem(options: ExplainOptions, symbols: str) -> Problem:
    """Return the untrained network of `python -m src.train model=manual seed=...` in float64, and the sequence."""
    ids, targets = torch.tensor([[*map(symbols.index, text)] for text in (options.input, options.target)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        rnn = ManualRNN(len(symbols), options.hidden_size, options.num_layers, options.nonlinearity)
        model = LanguageModel(rnn, len(symbols)).double()
    U, W, b = map(list, zip(*read_layers(rnn), strict=True))
    V, c = (parameter.detach() for parameter in model.readout.parameters())
    x = F.one_hot(ids, len(symbols)).double()
    return Problem(model, rnn, x, targets, U, W, b, V, c, options.nonlinearity)


def compute(p: Problem) -> Numbers:
    """Compute the equations at the head of this module."""
    f = torch.tanh if p.nonlinearity == "tanh" else torch.relu
    steps, layers = range(len(p.x)), range(len(p.W))
    z = [torch.zeros(len(p.x), len(b), dtype=p.x.dtype) for b in p.b]
    h, above, later, slope, delta = ([torch.zeros_like(z_l) for z_l in z] for _ in range(5))
    o = torch.zeros(len(p.x), len(p.c), dtype=p.x.dtype)
    for t in steps:
        for l in layers:  # noqa: E741  # the equations' letter
            below = p.x[t] if l == 0 else h[l - 1][t]
            before = h[l][t - 1] if t > 0 else torch.zeros_like(p.b[l])
            z[l][t] = p.U[l] @ below + p.W[l] @ before + p.b[l]
            h[l][t] = f(z[l][t])
        o[t] = p.V @ h[-1][t] + p.c
    yhat = o.softmax(-1)
    losses = -yhat[steps, p.targets].log()
    error = yhat - F.one_hot(p.targets, len(p.c))
    for t in reversed(steps):
        for l in reversed(layers):  # noqa: E741
            above[l][t] = p.V.T @ error[t] if l == layers[-1] else p.U[l + 1].T @ delta[l + 1][t]
            later[l][t] = p.W[l].T @ delta[l][t + 1] if t < steps[-1] else 0
            slope[l][t] = 1 - h[l][t] ** 2 if p.nonlinearity == "tanh" else (z[l][t] > 0).double()
            delta[l][t] = slope[l][t] * (above[l][t] + later[l][t])
    terms: dict[str, Tensor] = {}
    for l in layers:  # noqa: E741
        below = p.x if l == 0 else h[l - 1]
        before = torch.cat([torch.zeros_like(h[l][:1]), h[l][:-1]])
        dU, dW = (delta[l][:, :, None] * factor[:, None, :] for factor in (below, before))  # one outer product a step
        terms |= {f"dU^{l + 1}": dU, f"dW^{l + 1}": dW, f"db^{l + 1}": delta[l]}
    terms |= {"dV": error[:, :, None] * h[-1][:, None, :], "dc": error}
    sums = {name: term.flip(0).cumsum(0).flip(0) for name, term in terms.items()}  # from step T down to 1
    return Numbers(z, h, o, yhat, losses, error, above, later, slope, delta, sums)


def by_autograd(p: Problem) -> dict[str, Tensor]:
    """Return every number of `Numbers.compared` by autograd, through torch's own operations."""
    f = torch.tanh if p.nonlinearity == "tanh" else torch.relu
    U, W, b, (V, c) = ([tensor.clone().requires_grad_() for tensor in some] for some in (p.U, p.W, p.b, (p.V, p.c)))
    z: list[list[Tensor]] = [[] for _ in W]
    h: list[list[Tensor]] = [[] for _ in W]
    logits = []
    for x_t in p.x:
        below = x_t
        for l in range(len(W)):  # noqa: E741
            before = h[l][-1] if h[l] else torch.zeros_like(b[l])
            z[l].append(F.linear(below, U[l], b[l]) + F.linear(before, W[l]))
            below = f(z[l][-1])
            h[l].append(below)
        logits.append(F.linear(below, V, c))
    loss = F.cross_entropy(torch.stack(logits), p.targets, reduction="sum")
    gradients = partial(torch.autograd.grad, loss, retain_graph=True)
    found = dict(zip(("dV", "dc"), gradients((V, c)), strict=True))
    for l in range(len(W)):  # noqa: E741
        found |= {f"dL/dh_t^{l + 1}": torch.stack(gradients(h[l])), f"delta_t^{l + 1}": torch.stack(gradients(z[l]))}
        found |= zip([f"d{letter}^{l + 1}" for letter in "UWb"], gradients((U[l], W[l], b[l])), strict=True)
    return found


def by_fast_path(p: Problem) -> dict[str, Any]:
    """Return the gradients of the weights and the deltas as `model=manual` computes them in training."""
    p.model.zero_grad()
    with record_deltas(p.recurrence) as deltas:
        logits, _ = p.model(p.x.argmax(1)[:, None])
        F.cross_entropy(logits[:, 0], p.targets, reduction="sum").backward()
    found: dict[str, Any] = {"dV": p.model.readout.weight.grad, "dc": p.model.readout.bias.grad}
    for l, ((weight, bias), delta) in enumerate(zip(p.recurrence.directions(), deltas, strict=True), 1):  # noqa: E741
        assert weight.grad is not None and bias is not None and delta is not None
        dU, dW = split(weight.grad)
        found |= {f"delta_t^{l}": delta[:, 0], f"dU^{l}": dU, f"dW^{l}": dW, f"db^{l}": bias.grad}
    return found


@dataclass
class Difference:
    """The largest difference of a number's entries from another computation of them."""

    name: str
    largest: float  # absolute value of its entries, for comparison
    from_autograd: float
    from_fast_path: float | None = None


def differences(p: Problem, ours: Numbers) -> list[Difference]:
    """Compare every delta, dL/dh and gradient with autograd's, and with the fast path's where it computes them."""
    torchs, fast = by_autograd(p), by_fast_path(p)
    found = []
    for name, x in ours.compared().items():
        numbers = [x, x - torchs[name], *([x - fast[name]] if name in fast else [])]
        found.append(Difference(name, *(float(number.abs().max()) for number in numbers)))
    return found
