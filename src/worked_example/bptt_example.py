"""Backpropagation through time of one short sequence, one line an equation, with every term kept apart.

    z_t^l = U^l h_t^{l-1} + W^l h_{t-1}^l + b^l,   h_t^l = f(z_t^l),   h_t^0 = x_t
    o_t = V h_t^L + c,   yhat_t = softmax(o_t),   L_t = -log yhat_t[target_t],   L = sum_t L_t
    delta_t^l = f'(z_t^l) * (above_t^l + later_t^l),   above + later = dL/dh_t^l
        above_t^l = U^{l+1 T} delta_t^{l+1},   at the top layer V^T (yhat_t - y_t)
        later_t^l = W^{l T} delta_{t+1}^l,     zero at the last step
    dL/dU^l = sum_t delta_t^l (h_t^{l-1})^T    dL/dW^l = sum_t delta_t^l (h_{t-1}^l)^T    dL/db^l = sum_t delta_t^l
    dL/dV = sum_t (yhat_t - y_t) (h_t^L)^T     dL/dc = sum_t (yhat_t - y_t)

h_0 is zero, or the state after an earlier part of the text; readout=identity means V = I, c = 0.
`differences` compares all of it with autograd and the fast path. Indices of layers and steps count from 0; names of
numbers (`dU^1`) count from 1, as the equations do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.errors import UserError
from src.models.convert import read_layers
from src.models.kernels import split
from src.models.language_model import LanguageModel
from src.models.manual import ManualRNN, record_deltas

MOST_STEPS = 12  # steps are explained: more do not fit side by side. The text before them gives h_0
RATE = 0.1  # of the one update that is shown, the tutorial's


@dataclass
class Problem:
    """A network and a sequence: x (time, input) one-hot, targets (time,); U, W, b, h_0 of each layer; V, c."""

    model: LanguageModel  # model=manual, in float64
    symbols: Sequence[str]  # a label per id
    x: Tensor
    targets: Tensor
    U: list[Tensor]
    W: list[Tensor]
    b: list[Tensor]
    V: Tensor
    c: Tensor
    h_0: list[Tensor]
    earlier: Tensor  # ids that were read before x

    @property
    def nonlinearity(self) -> str:
        return str(self.model.recurrence.nonlinearity)

    @property
    def has_readout(self) -> bool:
        """Whether V and c are parameters; else the hidden state is o_t."""
        return isinstance(self.model.readout, nn.Linear)

    def parameters(self) -> dict[str, Tensor]:
        """Return the weights by the names of their gradients: dU^1, dW^1, db^1, ..., dV, dc."""
        layers = enumerate(zip(self.U, self.W, self.b, strict=True), 1)
        found = {f"d{letter}^{n}": w for n, layer in layers for letter, w in zip("UWb", layer, strict=True)}
        return found | ({"dV": self.V, "dc": self.c} if self.has_readout else {})


@dataclass
class Numbers:
    """Every number of a forward and a backward pass; a list has one (time, hidden) a layer."""

    below: list[Tensor]  # h_t^{l-1}, (time, input) for the first layer
    before: list[Tensor]  # h_{t-1}^l
    from_below: list[Tensor]  # U h_t^{l-1}
    from_before: list[Tensor]  # W h_{t-1}^l
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
    gradients: dict[str, Tensor]  # dU^1, ..., dV, dc

    def compared(self) -> dict[str, Tensor]:
        """Return every number that `differences` compares: dL/dh_t and delta_t of each layer, and the gradients."""
        found: dict[str, Tensor] = {}
        for l, (above, later, delta) in enumerate(zip(self.above, self.later, self.delta, strict=True), 1):  # noqa: E741
            found |= {f"dL/dh_t^{l}": above + later, f"delta_t^{l}": delta}
        return found | self.gradients


def build_problem(model: LanguageModel, symbols: Sequence[str], ids: Sequence[int], targets: Sequence[int]) -> Problem:
    """Return the last MOST_STEPS steps of a sequence as a problem; the steps before them are read, for h_0."""
    if skip := getattr(model.recurrence, "skip", None):
        raise UserError(f"model.skip={skip}: the worked example has no skip connections; explain a run without them")
    model = model.double().eval().requires_grad_(True)
    first = max(0, len(ids) - MOST_STEPS)
    every = torch.tensor(ids)
    layers = read_layers(model.recurrence)
    h_0 = [torch.zeros_like(layer.b) for layer in layers]
    if first:
        with torch.no_grad():
            h_0 = list(model(every[:first, None])[1][:, 0])
    U, W, b = map(list, zip(*layers, strict=True))
    V, c = torch.eye(len(symbols), dtype=torch.float64), torch.zeros(len(symbols), dtype=torch.float64)
    if isinstance(model.readout, nn.Linear):
        V, c = model.readout.weight.detach(), model.readout.bias.detach()
    x = F.one_hot(every[first:], len(symbols)).double()
    return Problem(model, symbols, x, torch.tensor(targets)[first:], U, W, b, V, c, h_0, every[:first])


def untrained(symbols: Sequence[str], hidden_size: int, num_layers: int, nonlinearity: str, seed: int) -> LanguageModel:
    """Return the network that `python -m src.train model=manual model.readout=linear seed=...` starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LanguageModel(ManualRNN(len(symbols), hidden_size, num_layers, nonlinearity), len(symbols))


def compute(p: Problem, last_alone: bool = False) -> Numbers:
    """Compute the equations at the head of this module; L is L_T instead of the sum over all steps if `last_alone`."""
    f = torch.tanh if p.nonlinearity == "tanh" else torch.relu
    steps, layers = range(len(p.x)), range(len(p.W))
    from_below = [torch.zeros(len(p.x), len(b), dtype=p.x.dtype) for b in p.b]
    from_before, z, h, above, later, slope, delta = ([torch.zeros_like(z_l) for z_l in from_below] for _ in range(7))
    o = torch.zeros(len(p.x), len(p.c), dtype=p.x.dtype)
    for t in steps:
        for l in layers:  # noqa: E741  # the equations' letter
            below = p.x[t] if l == 0 else h[l - 1][t]
            before = h[l][t - 1] if t > 0 else p.h_0[l]
            from_below[l][t], from_before[l][t] = p.U[l] @ below, p.W[l] @ before
            z[l][t] = from_below[l][t] + from_before[l][t] + p.b[l]
            h[l][t] = f(z[l][t])
        o[t] = p.V @ h[-1][t] + p.c
    yhat = o.softmax(-1)
    losses = -o.log_softmax(-1)[steps, p.targets]
    error = yhat - F.one_hot(p.targets, len(p.c))
    if last_alone:
        error[:-1] = 0
    for t in reversed(steps):
        for l in reversed(layers):  # noqa: E741
            above[l][t] = p.V.T @ error[t] if l == layers[-1] else p.U[l + 1].T @ delta[l + 1][t]
            later[l][t] = p.W[l].T @ delta[l][t + 1] if t < steps[-1] else 0
            slope[l][t] = 1 - h[l][t] ** 2 if p.nonlinearity == "tanh" else (z[l][t] > 0).double()
            delta[l][t] = slope[l][t] * (above[l][t] + later[l][t])
    gradients: dict[str, Tensor] = {}
    inputs = [p.x, *h[:-1]]
    states = [torch.cat([h_0[None], h_l[:-1]]) for h_0, h_l in zip(p.h_0, h, strict=True)]
    for l in layers:  # noqa: E741
        dU, dW = delta[l].T @ inputs[l], delta[l].T @ states[l]  # the sums over t
        gradients |= {f"dU^{l + 1}": dU, f"dW^{l + 1}": dW, f"db^{l + 1}": delta[l].sum(0)}
    if p.has_readout:
        gradients |= {"dV": error.T @ h[-1], "dc": error.sum(0)}
    forward = (inputs, states, from_below, from_before, z, h, o, yhat, losses)
    return Numbers(*forward, error, above, later, slope, delta, gradients)


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
            before = h[l][-1] if h[l] else p.h_0[l]
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
    recurrence: Any = p.model.recurrence
    with record_deltas(recurrence) as deltas:
        logits, _ = p.model(p.x.argmax(1)[:, None], torch.stack(p.h_0)[:, None])
        F.cross_entropy(logits[:, 0], p.targets, reduction="sum").backward()
    found: dict[str, Any] = {}
    if isinstance(p.model.readout, nn.Linear):
        found = {"dV": p.model.readout.weight.grad, "dc": p.model.readout.bias.grad}
    for l, ((weight, bias), delta) in enumerate(zip(recurrence.directions(), deltas, strict=True), 1):  # noqa: E741
        assert delta is not None
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


def with_weights(p: Problem, changed: dict[str, Tensor]) -> Problem:
    """Return the problem with other weights, by the names of `Problem.parameters`; h_0 stays as it is."""
    U, W, b = ([changed[f"d{letter}^{n + 1}"] for n in range(len(p.W))] for letter in "UWb")
    return replace(p, U=U, W=W, b=b, V=changed.get("dV", p.V), c=changed.get("dc", p.c))


def loss(p: Problem) -> float:
    """Return L."""
    return float(compute(p).losses.sum())


def moved(p: Problem, name: str, entry: tuple[int, ...], by: float) -> float:
    """Return L after one weight is moved."""
    weights = {key: weight.clone() for key, weight in p.parameters().items()}
    weights[name][entry] += by
    return loss(with_weights(p, weights))


def updated(p: Problem, gradients: dict[str, Tensor]) -> tuple[float, Problem]:
    """Return a learning rate and the problem after one step w - rate * dL/dw: RATE, halved until L is lower."""
    rate, before = RATE, loss(p)
    while True:
        after = with_weights(p, {name: w - rate * gradients[name] for name, w in p.parameters().items()})
        if loss(after) < before or rate < 1e-9:
            return rate, after
        rate /= 2


def reach(p: Problem) -> list[tuple[float, list[float]]]:
    """Return of each layer rho(W), the largest absolute eigenvalue, and |dL_T/dz_{T-k}| by lag k = 0 .. T-1."""
    deltas = compute(p, last_alone=True).delta
    radii = [float(torch.linalg.eigvals(W).abs().max()) for W in p.W]
    return [(rho, delta.norm(dim=1).flip(0).tolist()) for rho, delta in zip(radii, deltas, strict=True)]


MOST_UNITS, UNITS, MOST_SYMBOLS = 8, 3, 8  # a layer of more than MOST_UNITS is shown by UNITS of them


def shown_units(n: Numbers) -> list[Tensor]:
    """Return which units of each layer are shown, ascending: all, or those with the largest sum_t |delta_t|."""
    sums = [delta.abs().sum(0) for delta in n.delta]
    return [one.topk(len(one) if len(one) <= MOST_UNITS else UNITS).indices.sort().values for one in sums]


def shown_symbols(p: Problem, n: Numbers) -> Tensor:
    """Return which symbols are shown, ascending: of many the targets, then what is read, then what is predicted."""
    ids = [*p.targets.tolist(), *p.x.argmax(1).tolist(), *n.o.argmax(1).tolist(), *range(len(p.symbols))]
    return torch.tensor(sorted([*dict.fromkeys(ids)][:MOST_SYMBOLS]))
