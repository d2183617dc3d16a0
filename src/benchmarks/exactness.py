"""How exact the gradients of an implementation are: against autograd through torch's own modules in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from src.benchmarks.cases import CASES, Size, build, loss_of, window
from src.models.convert import convert_, read_layers
from src.models.language_model import LanguageModel, State


def gradient_errors(names: list[str], size: Size) -> dict[str, float]:
    """Return, for each case, the largest relative difference of a gradient to the one that float64 autograd finds.

        max over U, W, b, V, c of   max |g - g_64| / max |g_64|

    The same weights, window and random state for all; the truth of cell, stacked and manual is `torch.nn.RNN`, that of
    a gated model the same module in float64.
    """
    truths: dict[str, list[Tensor]] = {}
    errors = {}
    for name in names:
        case = CASES[name]
        model = build(case, size)
        kind = case.target if case.gates > 1 else CASES["stacked"].target
        if kind not in truths:
            exact = build(next(c for c in CASES.values() if c.target == kind), size).double()
            if case.gates == 1:
                convert_(exact, model)
            else:
                exact.load_state_dict(model.state_dict())
            truths[kind] = gradients(exact, size, False)
        pairs = zip(gradients(model, size, case.bf16), truths[kind], strict=True)
        found = [(g.double() - truth).abs().max() / truth.abs().max() for g, truth in pairs]
        errors[name] = float(torch.stack(found).max())  # torch's max, which a NaN does not escape as it does Python's
    return errors


def gradients(model: LanguageModel, size: Size, bf16: bool) -> list[Tensor]:
    """Return dU, dW, db of each layer, dV and dc; of a gated model the gradients of its parameters."""
    loss, _ = loss_of(model, *window(size), start(model, size), bf16)
    loss.backward()
    readout = [p.grad for p in model.readout.parameters() if p.grad is not None]
    if isinstance(model.recurrence.rnn if hasattr(model.recurrence, "rnn") else None, nn.LSTM | nn.GRU):
        return [p.grad for p in model.recurrence.parameters() if p.grad is not None] + readout
    shell = copy.deepcopy(model.recurrence)  # read as (U, W, b), whichever implementation it is
    for (name, p), source in zip(shell.named_parameters(), model.recurrence.parameters(), strict=True):
        # both of torch's biases have the gradient of b = b_ih + b_hh, and read_layers adds the two
        p.data = torch.zeros_like(p) if "bias_hh" in name or source.grad is None else source.grad
    return [tensor for layer in read_layers(shell) for tensor in layer] + readout


def start(model: LanguageModel, size: Size) -> State:
    """Return a random state, one that a backward pass cannot overlook."""
    generator = torch.Generator().manual_seed(2)
    dtype = next(model.parameters()).dtype
    shape = (size.num_layers, size.batch_size, size.hidden_size)
    h, c = (torch.rand(shape, generator=generator).sub(0.5).to(dtype) for _ in range(2))
    return (h, c) if isinstance(getattr(model.recurrence, "rnn", None), nn.LSTM) else h
