"""One recurrent layer over a whole window, fast: forward, backward, and the gradients from all deltas.

The equations, and the slow form that this is held to, stand in bptt.py. What no step waits for is one product for all
steps, before the walk forward and after the walk back; a step of the walk is made of the operations of step.py, or,
where steps are small, of those of small_steps.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.models import small_steps
from src.models.step import Activation, ActivationBackward, Affine, input_share, linear, product, scatter

Hidden = Float[Tensor, "time batch hidden"]
State = Float[Tensor, "batch hidden"]


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """U (hidden, input) and W (hidden, hidden), views of weight = [U W]."""
    hidden_size, both = weight.shape
    return weight.narrow(1, 0, both - hidden_size), weight.narrow(1, both - hidden_size, hidden_size)


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
    order = range(len(hidden))[:: -1 if reverse else 1]
    recur = Affine(W.t(), rows=hidden.shape[1], steps=hidden.shape[0])
    if small_steps.suits(hidden) and small_steps.numpy_multiplies(*hidden.shape[1:]):
        small_steps.forward(hidden, recur.M, h_0, nonlinearity, order)
        return hidden
    f = Activation(nonlinearity, hidden)
    steps = hidden.unbind(0)
    h_prev = h_0
    for t in order:
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
    order = range(len(hidden))[:: 1 if reverse else -1]
    recur = Affine(W, rows=hidden.shape[1], steps=hidden.shape[0])
    if small_steps.suits(hidden) and not recur.packed:
        grad_hidden = grad_hidden.to(hidden.dtype).contiguous()
        delta = grad_hidden if spend else torch.empty_like(hidden)
        small_steps.backward(delta, grad_hidden, grad_h_n, recur.M, hidden, nonlinearity, order)
        return delta
    if spend or recur.packed:
        grad_hidden = grad_hidden.to(hidden.dtype).contiguous()
    else:  # addmm_ in place is faster than from one tensor into another, by more than one copy of all
        grad_hidden, spend = torch.empty_like(hidden).copy_(grad_hidden), True
    delta = grad_hidden if spend else torch.empty_like(hidden)
    f_backward = ActivationBackward(nonlinearity, hidden, delta)
    into = delta.unbind(0)
    grads = into if spend else grad_hidden.unbind(0)
    delta_next = None
    for t in order:
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
