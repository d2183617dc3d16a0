"""Backpropagation through time of one short sequence, one line an equation, with every term kept apart.

    z_t^l = U^l h_t^{l-1} + W^l h_{t-1}^l + b^l,   h_t^l = f(z_t^l),   h_t^0 = x_t,   h_0^l = 0
    o_t = V h_t^L + c,   yhat_t = softmax(o_t),   L_t = -log yhat_t[target_t],   L = sum_t L_t
    delta_t^l = f'(z_t^l) * (above_t^l + later_t^l)
        above_t^l = U^{l+1 T} delta_t^{l+1},   at the top layer V^T (yhat_t - y_t)
        later_t^l = W^{l T} delta_{t+1}^l,     zero at the last step
    dL/dU^l = sum_t delta_t^l (h_t^{l-1})^T    dL/dW^l = sum_t delta_t^l (h_{t-1}^l)^T    dL/db^l = sum_t delta_t^l
    dL/dV = sum_t (yhat_t - y_t) (h_t^L)^T     dL/dc = sum_t (yhat_t - y_t)

Made to be read: no batch, no speed. `differences` compares it with autograd and with the fast path. Indices of layers
and steps count from 0; names of numbers (`dU^1`) count from 1, as the equations do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from src.config.commands import ExplainOptions
from src.models.convert import read_layers
from src.models.kernels import split
from src.models.language_model import LanguageModel
from src.models.manual import ManualRNN, record_deltas


@dataclass
class Problem:
    """A network and a sequence: x (time, input) one-hot, targets (time,), U, W, b of each layer, the readout's V, c."""

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
        return {name: partial[0] for name, partial in self.sums.items()}


def build_problem(
    ids: list[int], targets: list[int], vocab_size: int, config: ExplainOptions
) -> tuple[Problem, LanguageModel]:
    """Return the untrained network of `python -m src.train model=manual seed=...` in float64: its parts, and itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sizes = config.hidden_size, config.num_layers, config.nonlinearity
        model = LanguageModel(ManualRNN(vocab_size, *sizes), vocab_size).double()
    U, W, b = map(list, zip(*read_layers(model.recurrence), strict=True))
    V, c = (parameter.detach() for parameter in model.readout.parameters())
    x = F.one_hot(torch.tensor(ids), vocab_size).double()
    return Problem(x, torch.tensor(targets), U, W, b, V, c, config.nonlinearity), model


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
    terms = {}
    for l in layers:  # noqa: E741
        below = p.x if l == 0 else h[l - 1]
        before = torch.cat([torch.zeros_like(h[l][:1]), h[l][:-1]])
        terms[f"dU^{l + 1}"] = torch.stack([torch.outer(delta[l][t], below[t]) for t in steps])
        terms[f"dW^{l + 1}"] = torch.stack([torch.outer(delta[l][t], before[t]) for t in steps])
        terms[f"db^{l + 1}"] = delta[l]
    terms["dV"] = torch.stack([torch.outer(error[t], h[-1][t]) for t in steps])
    terms["dc"] = error
    sums = {name: term.flip(0).cumsum(0).flip(0) for name, term in terms.items()}  # from step T down to 1
    return Numbers(z, h, o, yhat, losses, error, above, later, slope, delta, sums)


def by_autograd(p: Problem, model: LanguageModel) -> dict[str, Tensor]:
    """Return the gradients of the weights by autograd, through `torch.nn.RNN`."""
    rnn = _recurrence(model).to_torch_rnn()
    V, c = (tensor.clone().requires_grad_() for tensor in (p.V, p.c))
    hidden, _ = rnn(p.x)
    F.cross_entropy(hidden @ V.T + c, p.targets, reduction="sum").backward()
    return _named([(U.grad, W.grad, b_ih.grad) for U, W, b_ih, _ in rnn.all_weights], V.grad, c.grad)


def by_autograd_of_every_step(p: Problem) -> tuple[list[Tensor], list[Tensor]]:
    """Return dL/dz_t and dL/dh_t of every layer, (time, hidden) each, by autograd through torch's own operations."""
    f = torch.tanh if p.nonlinearity == "tanh" else torch.relu
    z: list[list[Tensor]] = [[] for _ in p.W]
    h: list[list[Tensor]] = [[] for _ in p.W]
    logits = []
    for x_t in p.x:
        below = x_t
        for l, (U, W, b) in enumerate(zip(p.U, p.W, p.b, strict=True)):  # noqa: E741
            before = h[l][-1] if h[l] else torch.zeros_like(b)
            z[l].append((F.linear(below, U, b) + F.linear(before, W)).requires_grad_())
            below = f(z[l][-1])
            h[l].append(below)
        logits.append(F.linear(below, p.V, p.c))
    wanted = [number for numbers in (z, h) for layer in numbers for number in layer]
    loss = F.cross_entropy(torch.stack(logits), p.targets, reduction="sum")
    rows = torch.stack(torch.autograd.grad(loss, wanted)).view(2, len(p.W), len(p.x), -1)
    return list(rows[0]), list(rows[1])


def by_fast_path(p: Problem, model: LanguageModel) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the gradients of the weights and the deltas as `model=manual` computes them in training."""
    model.zero_grad()
    with record_deltas(_recurrence(model)) as deltas:
        logits, _ = model(p.x.argmax(1)[:, None])
        F.cross_entropy(logits[:, 0], p.targets, reduction="sum").backward()
    layers = [(*split(layer.weight.grad), layer.bias.grad) for layer in _recurrence(model).layers]
    return _named(layers, *(q.grad for q in model.readout.parameters())), [d[:, 0] for d in deltas if d is not None]


def _recurrence(model: LanguageModel) -> ManualRNN:
    assert isinstance(model.recurrence, ManualRNN)
    return model.recurrence


def _named(layers: Sequence[Sequence[Any]], dV: Any, dc: Any) -> dict[str, Tensor]:
    named = {f"d{letter}^{l}": grad for l, grads in enumerate(layers, 1) for letter, grad in zip("UWb", grads)}  # noqa: B905, E741
    return {**named, "dV": dV, "dc": dc}


@dataclass
class Difference:
    """The largest difference of a number's entries from another computation of them."""

    name: str
    largest: float  # absolute value of its entries, for comparison
    from_autograd: float
    from_fast_path: float | None


def differences(p: Problem, model: LanguageModel, ours: Numbers) -> list[Difference]:
    """Compare every delta, dL/dh and gradient with autograd's, and with the fast path's where it computes them."""

    def difference(name: str, number: Tensor, autograd: Tensor, fast_path: Tensor | None) -> Difference:
        of_fast_path = None if fast_path is None else float((number - fast_path).abs().max())
        return Difference(name, float(number.abs().max()), float((number - autograd).abs().max()), of_fast_path)

    torchs, (dz, dh), (fast, fast_deltas) = by_autograd(p, model), by_autograd_of_every_step(p), by_fast_path(p, model)
    found = []
    for l, delta in enumerate(ours.delta):  # noqa: E741
        found.append(difference(f"dL/dh_t^{l + 1}", ours.above[l] + ours.later[l], dh[l], None))
        found.append(difference(f"delta_t^{l + 1}", delta, dz[l], fast_deltas[l]))
    return found + [difference(name, grad, torchs[name], fast[name]) for name, grad in ours.gradients().items()]
