"""Backpropagation through time of one short sequence, one line an equation, with every term kept apart.

    z_t^l = U^l h_t^{l-1} + W^l h_{t-1}^l + b^l,   h_t^l = f(z_t^l),   h_t^0 = x_t,   h_0^l = 0
    o_t = V h_t^L + c,   yhat_t = softmax(o_t),   L_t = -log yhat_t[target_t],   L = sum_t L_t
    delta_t^l = f'(z_t^l) * (above_t^l + later_t^l)
        above_t^l = U^{l+1 T} delta_t^{l+1},   at the top layer V^T (yhat_t - y_t)
        later_t^l = W^{l T} delta_{t+1}^l,     zero at the last step
    dL/dU^l = sum_t delta_t^l (h_t^{l-1})^T    dL/dW^l = sum_t delta_t^l (h_{t-1}^l)^T    dL/db^l = sum_t delta_t^l
    dL/dV = sum_t (yhat_t - y_t) (h_t^L)^T     dL/dc = sum_t (yhat_t - y_t)

Made to be read: no batch, no speed. `differences` holds it to autograd and to the fast path. In the tuples a layer is
counted from 0 and a step too; in names of numbers (`dU^1`) both are counted from 1, as the equations are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.models.kernels import split
from src.models.language_model import LanguageModel
from src.models.manual import ManualRNN, record_deltas


@dataclass
class Problem:
    """A network and a sequence: x (time, input) one-hot, targets (time,), weights a layer, the readout's V and c."""

    x: Tensor
    targets: Tensor
    U: list[Tensor]
    W: list[Tensor]
    b: list[Tensor]
    V: Tensor
    c: Tensor
    nonlinearity: str


@dataclass
class WrittenOut:
    """Every number of a forward and a backward pass; what has a layer is a list of (time, hidden)."""

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
        """Return the whole sums."""
        return {name: partial[0] for name, partial in self.sums.items()}


def problem(ids: list[int], targets: list[int], vocab_size: int, hidden_size: int, num_layers: int, nonlinearity: str,
            seed: int) -> tuple[Problem, LanguageModel]:  # fmt: skip
    """Return the network that `python -m src.train model=manual seed=...` starts from, in float64, twice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(ManualRNN(vocab_size, hidden_size, num_layers, nonlinearity), vocab_size).double()
    recurrence, readout = model.recurrence, model.readout
    assert isinstance(recurrence, ManualRNN)
    pairs = [(weight.detach(), bias) for weight, bias in recurrence.directions()]
    U, W = zip(*(split(weight) for weight, _ in pairs), strict=True)
    b = [bias.detach() for _, bias in pairs if bias is not None]
    V, c = (p.detach() for p in readout.parameters())
    x = F.one_hot(torch.tensor(ids), vocab_size).double()
    return Problem(x, torch.tensor(targets), list(U), list(W), b, V, c, nonlinearity), model


def write_out(p: Problem) -> WrittenOut:
    """Run the equations of this module's head."""
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
    return WrittenOut(z, h, o, yhat, losses, error, above, later, slope, delta, sums)


def by_autograd(p: Problem) -> dict[str, Tensor]:
    """Return the gradients of the weights by autograd, through `torch.nn.RNN`."""
    sizes = p.x.shape[1], len(p.b[0]), len(p.W)
    rnn = nn.RNN(*sizes, nonlinearity=p.nonlinearity, device="meta", dtype=p.x.dtype).to_empty(device="cpu")
    with torch.no_grad():
        for (U, W, b_ih, b_hh), *ours in zip(rnn.all_weights, p.U, p.W, p.b, strict=True):
            for target, source in zip((U, W, b_ih), ours, strict=True):
                target.copy_(source)
            b_hh.zero_()
    V, c = (tensor.clone().requires_grad_() for tensor in (p.V, p.c))
    hidden, _ = rnn(p.x)
    F.cross_entropy(hidden @ V.T + c, p.targets, reduction="sum").backward()
    found = {"dV": V.grad, "dc": c.grad}
    for i, (U, W, b_ih, _) in enumerate(rnn.all_weights, start=1):
        found |= {f"dU^{i}": U.grad, f"dW^{i}": W.grad, f"db^{i}": b_ih.grad}
    return {name: grad for name, grad in found.items() if grad is not None}


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


def by_fast_path(model: LanguageModel, p: Problem) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the gradients of the weights and the deltas as `model=manual` computes them in training."""
    recurrence = model.recurrence
    assert isinstance(recurrence, ManualRNN)
    model.zero_grad()
    with record_deltas(recurrence) as deltas:
        logits, _ = model(p.x.argmax(1)[:, None])
        F.cross_entropy(logits[:, 0], p.targets, reduction="sum").backward()
    grads = [[q.grad for q in layer if q is not None and q.grad is not None] for layer in recurrence.directions()]
    found = dict(zip(("dV", "dc"), (q.grad for q in model.readout.parameters() if q.grad is not None), strict=True))
    for i, (weight, bias) in enumerate(grads, start=1):
        dU, dW = split(weight)
        found |= {f"dU^{i}": dU, f"dW^{i}": dW, f"db^{i}": bias}
    return found, [delta[:, 0] for delta in deltas if delta is not None]


@dataclass
class Difference:
    """How far a number written out is from another computation of it, at most over its entries."""

    name: str
    largest: float  # of the written-out entries, as a size to compare with
    from_autograd: float
    from_fast_path: float | None


def differences(p: Problem, model: LanguageModel, ours: WrittenOut) -> list[Difference]:
    """Hold every delta, every dL/dh and every gradient to autograd, and to the fast path where that has it."""

    def off(one: Tensor, other: Tensor) -> float:
        return float((one - other).abs().max())

    torchs, (dz, dh), (fast, fast_deltas) = by_autograd(p), by_autograd_of_every_step(p), by_fast_path(model, p)
    found = []
    for l, delta in enumerate(ours.delta):  # noqa: E741
        g = ours.above[l] + ours.later[l]
        found.append(Difference(f"dL/dh_t^{l + 1}", float(g.abs().max()), off(g, dh[l]), None))
        largest = float(delta.abs().max())
        found.append(Difference(f"delta_t^{l + 1}", largest, off(delta, dz[l]), off(delta, fast_deltas[l])))
    for name, grad in ours.gradients().items():
        found.append(Difference(name, float(grad.abs().max()), off(grad, torchs[name]), off(grad, fast[name])))
    return found
