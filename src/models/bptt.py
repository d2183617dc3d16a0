"""Forward and backward through time of one recurrent layer, written out.

    z_t = U x_t + W h_{t-1} + b        h_t = f(z_t)        f = tanh or relu        weight = [U W], one linear layer

    delta_t = dL/dz_t = f'(z_t) * (W^T delta_{t+1} + g_t)      g_t = dL/dh_t along all paths but the one by h_{t+1}
    dL/dU = sum_t delta_t x_t^T        dL/dW = sum_t delta_t h_{t-1}^T        dL/db = sum_t delta_t
    dL/dx_t = U^T delta_t              dL/dh_0 = W^T delta_1

`reference` and `reference_backward` compute this one equation a line. `recurrence` computes the same fast (kernels.py):
what does not depend on the step before (U x_t + b; dU, dW, db, dx) is one product for all steps. A one-hot vector times
U is a column of U, so ids are looked up and their gradient is scattered back. With model.skip a layer reads both: x_t
is then a step of `inputs` with the one-hot vector of `ids` appended. Sizes are checked by manual.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from src.models.kernels import Hidden, State, autocast_dtype, backward_window, forward_window, gradients, split

Inputs = Int[Tensor, "time batch"] | Float[Tensor, "time batch input"]


def reference(
    inputs: Inputs,
    weight: Float[Tensor, "hidden input_and_hidden"],
    bias: Float[Tensor, " hidden"] | None = None,
    h_0: State | None = None,
    nonlinearity: str = "tanh",
    reverse: bool = False,
    ids: Int[Tensor, "time batch"] | None = None,
) -> tuple[Hidden, State]:
    """Run the layer one step and one equation at a time, for autograd to differentiate: (hidden, h_n)."""
    U, W = split(weight)
    b = 0 if bias is None else bias
    f = torch.tanh if nonlinearity == "tanh" else torch.relu
    read, features = ([inputs], inputs.shape[2]) if inputs.is_floating_point() else ([], 0)
    if (ids := ids if read else inputs) is not None:  # F.one_hot would read values, which vmap and tracing do not have
        read.append((ids.unsqueeze(-1) == torch.arange(U.shape[1] - features, device=ids.device)).to(U.dtype))
    x = torch.cat(read, dim=2)
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
    """Return delta_t and every gradient, an equation a line; grad_hidden is g_t; g_T has the gradient of h_n in it."""
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
    ids: Int[Tensor, "time batch"] | None = None,
    *,
    on_deltas: Callable[[Tensor], None] | None = None,
    spend_grad: bool = False,
) -> tuple[Hidden, State]:
    """Compute what `reference` computes, fast; under autocast the products are in its dtype.

    The backward pass calls `on_deltas` with delta (time, batch, hidden); `spend_grad`: it may overwrite dL/dhidden.
    """
    dtype = (weight.dtype is torch.float32 and autocast_dtype(weight)) or weight.dtype
    leaves = (inputs, weight, bias, h_0)
    if torch.is_grad_enabled() and any(leaf is not None and leaf.requires_grad for leaf in leaves):
        return Recurrence.apply(*leaves, nonlinearity, reverse, ids, dtype, on_deltas, spend_grad)
    inputs, weight, bias, h_0 = (_cast(leaf, dtype) for leaf in leaves)
    hidden = forward_window(inputs, weight, bias, h_0, nonlinearity, reverse, ids)
    return hidden, hidden[0 if reverse else -1].clone()


def _cast(leaf: Tensor | None, dtype: torch.dtype) -> Any:
    return leaf if leaf is None or leaf.dtype is dtype or not leaf.is_floating_point() else leaf.to(dtype)


class Recurrence(torch.autograd.Function):
    """One node of autograd's graph for a layer over a window; with create_graph=True it goes through `reference`."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, h_0: Tensor | None, *how: Any
    ) -> tuple[Hidden, State]:
        """`how` is nonlinearity, reverse, ids, dtype of the products, on_deltas, spend_grad."""
        nonlinearity, reverse, ids, dtype, ctx.on_deltas, ctx.spend_grad = how
        x, w, b, state = (_cast(leaf, dtype) for leaf in (inputs, weight, bias, h_0))
        hidden = forward_window(x, w, b, state, nonlinearity, reverse, ids)
        ctx.save_for_backward(inputs, weight, bias, h_0, ids, hidden)
        ctx.nonlinearity, ctx.reverse = nonlinearity, reverse
        return hidden, hidden[0 if reverse else -1].clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        *leaves, ids, hidden = ctx.saved_tensors
        inputs, weight, bias, h_0 = (_cast(leaf, hidden.dtype) for leaf in leaves)
        needed = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            if ctx.on_deltas is not None:
                raise RuntimeError("deltas are recorded in a plain backward pass; leave out create_graph=True")
            outputs = reference(inputs, weight, bias, h_0, ctx.nonlinearity, ctx.reverse, ids)
            some = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
            found = iter(torch.autograd.grad(outputs, some, grad_outputs, create_graph=True, allow_unused=True))
            return *[next(found) if need else None for need in needed], *[None] * 6
        grad_hidden, grad_h_n = grad_outputs
        delta = backward_window(grad_hidden, grad_h_n, weight, hidden, ctx.nonlinearity, ctx.reverse, ctx.spend_grad)
        if ctx.on_deltas is not None:
            ctx.on_deltas(delta)
        grads = gradients(delta, inputs, weight, h_0, hidden, ctx.reverse, needed, ids)
        return *[g if g is None else _cast(g, leaf.dtype) for g, leaf in zip(grads, leaves, strict=True)], *[None] * 6
