"""Forward and backward through time of one recurrent layer, written out.

    z_t = U x_t + W h_{t-1} + b        h_t = f(z_t)        f = tanh or relu        weight = [U W], one linear layer

    delta_t = dL/dz_t = f'(z_t) * (W^T delta_{t+1} + g_t)      g_t = dL/dh_t by every way but h_{t+1}
    dL/dU = sum_t delta_t x_t^T        dL/dW = sum_t delta_t h_{t-1}^T        dL/db = sum_t delta_t
    dL/dx_t = U^T delta_t              dL/dh_0 = W^T delta_1

`reference` and `reference_backward` say this one line an equation. `recurrence` is the same thing fast: what does not
depend on the step before (the share of the input; dU, dW, db, dx) is one product for all steps, so that a step is one
product with W and one elementwise operation, and autograd keeps one node a layer instead of three a step.

Axes: inputs (time, batch) ids or (time, batch, input) features, hidden (time, batch, hidden), h_0 (batch, hidden).
A one-hot vector times U is a column of U, so ids are looked up and their gradient is scattered back.
`reverse=True` walks from the last step to the first. Sizes are checked by the caller (manual.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.models.inputs import one_hot
from src.models.step import Activation, ActivationBackward, Affine, input_share, linear, product, scatter

Inputs = Int[Tensor, "time batch"] | Float[Tensor, "time batch input"]
Hidden = Float[Tensor, "time batch hidden"]
State = Float[Tensor, "batch hidden"]


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """U (hidden, input) and W (hidden, hidden), views of weight = [U W]."""
    hidden_size, both = weight.shape
    return weight.narrow(1, 0, both - hidden_size), weight.narrow(1, both - hidden_size, hidden_size)


def reference(
    inputs: Inputs,
    weight: Float[Tensor, "hidden input_and_hidden"],
    bias: Float[Tensor, " hidden"] | None = None,
    h_0: State | None = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
) -> tuple[Hidden, State]:
    """The layer one step and one equation at a time, for autograd to differentiate: (hidden, h_n)."""
    U, W = split(weight)
    b = 0 if bias is None else bias
    f = torch.tanh if nonlinearity == "tanh" else torch.relu
    x = inputs if inputs.is_floating_point() else one_hot(inputs, U.shape[1], U.dtype)
    h_t = x.new_zeros(x.shape[1], U.shape[0]) if h_0 is None else h_0
    steps = list(range(x.shape[0]))
    hidden = {}
    for t in reversed(steps) if reverse else steps:
        z_t = x[t] @ U.T + h_t @ W.T + b
        h_t = f(z_t)
        hidden[t] = h_t
    return torch.stack([hidden[t] for t in steps]), h_t


def reference_backward(
    x: Float[Tensor, "time batch input"],
    weight: Float[Tensor, "hidden input_and_hidden"],
    h_0: State,
    hidden: Hidden,
    grad_hidden: Hidden,
    nonlinearity: str = "tanh",
) -> dict[str, Tensor]:
    """delta_t and every gradient, one step and one equation at a time; grad_hidden is g_t, h_n's gradient in g_T."""
    U, W = split(weight)
    dU, dW, db = torch.zeros_like(U), torch.zeros_like(W), torch.zeros_like(W[0])
    delta, dx = torch.zeros_like(hidden), torch.zeros_like(x)
    delta_next = torch.zeros_like(h_0)
    for t in reversed(range(len(x))):
        h_t, h_prev = hidden[t], hidden[t - 1] if t > 0 else h_0
        slope = 1 - h_t**2 if nonlinearity == "tanh" else (h_t > 0).to(h_t.dtype)
        delta_t = slope * (delta_next @ W + grad_hidden[t])
        dU += delta_t.T @ x[t]
        dW += delta_t.T @ h_prev
        db += delta_t.sum(0)
        dx[t] = delta_t @ U
        delta[t] = delta_next = delta_t
    return {"delta": delta, "x": dx, "U": dU, "W": dW, "b": db, "h_0": delta_next @ W}


def recurrence(
    inputs: Inputs,
    weight: Float[Tensor, "hidden input_and_hidden"],
    bias: Float[Tensor, " hidden"] | None = None,
    h_0: State | None = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    *,
    on_deltas: Callable[[Tensor], None] | None = None,
    spend_grad: bool = False,
) -> tuple[Hidden, State]:
    """`reference`, fast: (hidden, h_n).

    on_deltas: called in the backward pass with delta (time, batch, hidden), which that pass has at hand anyway.
    spend_grad: the deltas may take the place of dL/dhidden in memory; for a caller who keeps hidden to itself.
    Under autocast the products are in its dtype; weights and their gradients keep theirs.
    """
    dtype, device = weight.dtype, weight.device.type
    if dtype is torch.float32 and device != "meta" and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    leaves = (inputs, weight, bias, h_0)
    if torch.is_grad_enabled() and any(leaf is not None and leaf.requires_grad for leaf in leaves):
        return Recurrence.apply(*leaves, nonlinearity, reverse, dtype, on_deltas, spend_grad)
    inputs, weight, bias, h_0 = (_cast(leaf, dtype) for leaf in leaves)
    hidden = forward_window(inputs, weight, bias, h_0, nonlinearity, reverse)
    return hidden, hidden[0 if reverse else -1].clone()


def _cast(leaf: Tensor | None, dtype: torch.dtype) -> Any:
    return leaf if leaf is None or leaf.dtype is dtype or not leaf.is_floating_point() else leaf.to(dtype)


@np.errstate(all="ignore")  # as torch computes: a number that underflows is zero, whatever the caller's np.seterr says
def forward_window(
    inputs: Tensor, weight: Tensor, b: Tensor | None, h_0: Tensor | None, nonlinearity: str, reverse: bool
) -> Hidden:
    """All h_t. The input's share is written into the memory that becomes hidden; a step turns z_t into h_t there."""
    if len(inputs) == 1 and h_0 is not None and inputs.is_floating_point():  # a step alone: one product with [x; h]
        z = linear(torch.cat([inputs[0], h_0], dim=1).unsqueeze(0), weight, b)
        Activation(nonlinearity, z)(0, None)
        return z
    U, W = split(weight)
    hidden = input_share(inputs, U, b)
    recur = Affine(W.t(), rows=hidden.shape[1], steps=hidden.shape[0])
    f = Activation(nonlinearity, hidden)
    steps = hidden.unbind(0)
    h_prev = h_0
    for t in reversed(range(len(steps))) if reverse else range(len(steps)):
        h_t = steps[t]
        z_t = h_t if h_prev is None else recur(h_t, h_prev, h_t)
        f(t, None if z_t is h_t else z_t)
        h_prev = h_t
    return hidden


@np.errstate(all="ignore")
def backward_window(
    grad_hidden: Hidden, grad_h_n: State, weight: Tensor, hidden: Hidden, nonlinearity: str, reverse: bool, spend: bool
) -> Hidden:
    """All delta_t = dL/dz_t, from the last step of the walk to the first; in grad_hidden's memory if `spend`."""
    _, W = split(weight)
    recur = Affine(W, rows=hidden.shape[1], steps=hidden.shape[0])
    if spend or recur.packed:
        grad_hidden = grad_hidden.to(hidden.dtype).contiguous()
    else:  # addmm_ in place is faster than from one tensor into another, by more than one copy of all
        grad_hidden, spend = torch.empty_like(hidden).copy_(grad_hidden), True
    delta = grad_hidden if spend else torch.empty_like(hidden)
    f_backward = ActivationBackward(nonlinearity, hidden, delta)
    into = delta.unbind(0)
    grads = into if spend else grad_hidden.unbind(0)
    delta_next = None
    for t in range(len(into)) if reverse else reversed(range(len(into))):
        delta_t = into[t]
        dh_t = grads[t] + grad_h_n if delta_next is None else recur(grads[t], delta_next, delta_t)
        f_backward(t, dh_t)
        delta_next = delta_t
    return delta


def gradients(
    delta: Hidden,
    inputs: Tensor,
    weight: Tensor,
    h_0: Tensor | None,
    hidden: Hidden,
    reverse: bool,
    asked: Sequence[bool],
) -> list[Tensor | None]:
    """dL/d(inputs, weight, bias, h_0), None where not asked, from all deltas: one product each, one sum for db."""
    U, W = split(weight)
    rows = delta.flatten(0, 1)
    wide = torch.promote_types(delta.dtype, torch.float32)  # of dweight and db; what `product` rounds, it says
    first, later, earlier = (delta[-1], delta[:-1], hidden[1:]) if reverse else (delta[0], delta[1:], hidden[:-1])
    dx = dweight = db = dh_0 = None
    if asked[0]:
        dx = linear(delta, U.t())
    if asked[1]:
        dweight = torch.empty_like(weight, dtype=wide)
        dU, dW = split(dweight)
        if inputs.is_floating_point():
            product(rows.t(), inputs.reshape(-1, U.shape[1]), dU)
        else:
            columns = scatter(delta, inputs, U.shape[1])
            dU.copy_(columns.t())
            db = columns.sum(0) if asked[2] else None  # every delta is in one of the columns
        product(later.flatten(0, 1).t(), earlier.flatten(0, 1), dW)
        if h_0 is not None:
            product(first.t(), h_0, dW, add=True)
    if asked[2] and db is None:
        db = rows.sum(0, dtype=wide)
    if asked[3]:
        dh_0 = torch.mm(first, W, out=torch.empty_like(first))
    return [dx, dweight, db, dh_0]


class Recurrence(torch.autograd.Function):
    """One node of autograd's graph for a layer over a window; only the gradients that are asked for are computed.

    A backward pass with create_graph=True goes through `reference`, so second derivatives are right, and slow.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        h_0: Tensor | None,
        nonlinearity: str,
        reverse: bool,
        dtype: torch.dtype,
        on_deltas: Callable[[Tensor], None] | None,
        spend_grad: bool,
    ) -> tuple[Hidden, State]:
        """(hidden, h_n); `dtype` is the precision of the products, the other words are those of `recurrence`."""
        x, w, b, state = (_cast(leaf, dtype) for leaf in (inputs, weight, bias, h_0))
        hidden = forward_window(x, w, b, state, nonlinearity, reverse)
        ctx.save_for_backward(inputs, weight, bias, h_0, hidden)
        ctx.nonlinearity, ctx.reverse = nonlinearity, reverse
        ctx.on_deltas, ctx.spend_grad = on_deltas, spend_grad
        return hidden, hidden[0 if reverse else -1].clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        """The gradients of inputs, weight, bias and h_0."""
        *leaves, hidden = ctx.saved_tensors
        inputs, weight, bias, h_0 = (_cast(leaf, hidden.dtype) for leaf in leaves)
        grad_hidden, grad_h_n = grad_outputs
        asked = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            if ctx.on_deltas is not None:
                raise RuntimeError("deltas are recorded in a plain backward pass; leave out create_graph=True")
            outputs = reference(inputs, weight, bias, h_0, ctx.nonlinearity, ctx.reverse)
            wanted = [leaf for leaf, needed in zip(leaves, asked, strict=True) if needed]
            found = iter(torch.autograd.grad(outputs, wanted, grad_outputs, create_graph=True, allow_unused=True))
            return *[next(found) if needed else None for needed in asked], *[None] * 5
        spend = ctx.spend_grad
        delta = backward_window(grad_hidden, grad_h_n, weight, hidden, ctx.nonlinearity, ctx.reverse, spend)
        if ctx.on_deltas is not None:
            ctx.on_deltas(delta)
        grads = gradients(delta, inputs, weight, h_0, hidden, ctx.reverse, asked)
        return *[g if g is None else _cast(g, leaf.dtype) for g, leaf in zip(grads, leaves, strict=True)], *[None] * 5
