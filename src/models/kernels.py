"""The operations of which every step of a recurrence is made, each in the fastest form measured on a CPU.

    z_t = c_t + a M              `Affine`: M is W^T on the way forward and W on the way back, one for the whole window
    h_t = f(z_t)                 `Activation`
    delta_t = f'(z_t) * g_t      `ActivationBackward`

Beside every fast form stands a plain one, for other devices and precisions. Which is taken depends on sizes, dtype,
device and the number of threads, never on a clock, so that equal runs stay equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

NONLINEARITIES = ("tanh", "relu")


def in_main_memory(tensor: Tensor) -> bool:
    """Whether numpy and oneDNN may reach into this tensor: no subclass, in main memory."""
    return type(tensor) is Tensor and tensor.device.type == "cpu"


def pays_to_pack(M: Tensor, rows: int) -> bool:
    """Whether oneDNN, with M laid out in blocks beforehand, multiplies (rows, n) by M (n, n) faster than addmm.

    Without it MKL lays M out anew at every step. Microseconds of a step of 64 rows on two AVX-512 cores, addmm and
    packed: float32, H = 256: 56, 65; 384: 130, 110; 512: 233, 180; 1024: 1,190, 680. bfloat16, H = 128: 27, 26;
    256: 46, 43; 512: 120, 105; 1024: 428, 370. Packing itself takes 700 (float32, H = 512), once a window.
    """
    if rows < 8 or not in_main_memory(M) or not torch.backends.mkldnn.is_available():
        return False
    if M.dtype is torch.bfloat16:
        return min(M.shape) >= 128 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return M.dtype is torch.float32 and min(M.shape) >= 384


class Affine:
    """(c, a) -> c + a M for a fixed M (n, n), called `steps` times with c and a (rows, n)."""

    def __init__(self, M: Tensor, rows: int, steps: int) -> None:
        self.packed = steps >= 16 and pays_to_pack(M, rows)
        if self.packed:
            M = torch.ops.mkldnn._reorder_linear_weight(M.t(), rows)
        elif steps >= 4:
            M = M.contiguous()
        self.M = M

    def __call__(self, c: Tensor, a: Tensor, out: Tensor) -> Tensor:
        """c + a M: in `out`, which may be c, or in a tensor of its own."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise.binary(a, c, self.M, None, "add")
        return c.addmm_(a, self.M) if c is out else torch.addmm(c, a, self.M, out=out)


def linear(x: Tensor, M: Tensor, b: Tensor | None = None) -> Tensor:
    """x M^T + b of a whole window: x (time, batch, k), M (m, k), b (m,), in memory of its own (time, batch, m)."""
    rows = x.flatten(0, 1)
    if rows.shape[0] >= 1024 and pays_to_pack(M, rows.shape[0]):  # fewer rows do not pay for the packing
        # a slice of [U W] as it lies would fall to oneDNN's reference loop, thousands of times slower
        packed = torch.ops.mkldnn._reorder_linear_weight(M, rows.shape[0])
        return torch.ops.mkldnn._linear_pointwise(x, packed, b, "none", [None], "")
    share = x.new_empty(*x.shape[:2], M.shape[0])
    out = share.flatten(0, 1)
    # out= also keeps autocast away: the dtype was chosen once, by the caller
    if b is None:
        torch.mm(rows, M.t(), out=out)
    else:
        torch.addmm(b, rows, M.t(), out=out)
    return share


def product(a: Tensor, b: Tensor, out: Tensor, add: bool = False) -> None:
    """out = a b, or out += a b: a (m, k), b (k, n), out (m, n) in their dtype or a wider one.

    A product of bfloat16 is summed in float32 and comes rounded to bfloat16, once: torch has no other on a CPU.
    """
    if out.dtype is a.dtype:
        out.addmm_(a, b, beta=float(add))
        return
    rounded = torch.mm(a, b, out=a.new_empty(out.shape))
    out.add_(rounded) if add else out.copy_(rounded)


class Activation:
    """z_t -> h_t = f(z_t), written into one step of hidden (time, batch, hidden), where z_t itself may stand.

    tanh of 32,768 float32 numbers takes torch 86 us on one core and 47 on two, numpy 12 (off by at most 1.4 units in
    the last place, torch by 0.5); in bfloat16 torch 56 and 31, numpy by way of float32 20.
    """

    def __init__(self, nonlinearity: str, hidden: Tensor) -> None:
        self.relu = nonlinearity == "relu"
        self.wide = None
        self.steps: Sequence[Any] = hidden.unbind(0)
        self.numpy = not self.relu and in_main_memory(hidden) and hidden.dtype in (torch.float32, torch.float64)
        if self.numpy:
            self.steps = list(hidden.numpy())
        elif not self.relu and in_main_memory(hidden) and hidden.dtype in (torch.bfloat16, torch.float16):
            self.wide = torch.empty(hidden.shape[1:], dtype=torch.float32)

    def __call__(self, t: int, z_t: Tensor | None) -> None:
        """hidden[t] = f(z_t), or of itself where z_t is None."""
        h_t = self.steps[t]
        if self.numpy:
            np.tanh(h_t if z_t is None else z_t.numpy(), h_t)
            return
        z_t = h_t if z_t is None else z_t
        if self.relu:
            torch.clamp_min(z_t, 0, out=h_t)
        elif self.wide is not None:
            wide = self.wide.copy_(z_t).numpy()
            np.tanh(wide, wide)
            h_t.copy_(self.wide)
        else:
            torch.tanh(z_t, out=h_t)


class ActivationBackward:
    """g_t -> delta_t = f'(z_t) * g_t, written into one step of delta, where g_t itself may stand.

    f' is read off h = f(z): 1 - h^2 for tanh, h > 0 for relu.
    """

    def __init__(self, nonlinearity: str, hidden: Tensor, delta: Tensor) -> None:
        self.relu = nonlinearity == "relu"
        self.hidden, self.delta = hidden.unbind(0), delta.unbind(0)

    def __call__(self, t: int, g_t: Tensor) -> None:
        """delta[t] = f'(z_t) * g_t."""
        if self.relu:
            torch.ops.aten.threshold_backward.grad_input(g_t, self.hidden[t], 0, grad_input=self.delta[t])
        else:
            torch.ops.aten.tanh_backward.grad_input(g_t, self.hidden[t], grad_input=self.delta[t])


def input_share(inputs: Tensor, U: Tensor, b: Tensor | None) -> Tensor:
    """U x_t + b of all steps (time, batch, hidden), in memory of its own. IndexError for an id without a column."""
    if inputs.is_floating_point():
        return linear(inputs, U, b)
    share = U.new_empty(*inputs.shape, U.shape[0])
    many = inputs.numel() >= U.shape[1]
    table = U.t()  # a row an id
    if many:  # b is added once an id, not once a step
        table = (table if b is None else table + b).contiguous()
    try:
        torch.index_select(table, 0, inputs.reshape(-1), out=share.flatten(0, 1))
    except IndexError:
        came = f"{int(inputs.min())} to {int(inputs.max())}"
        raise IndexError(f"ids from {came}, but there are columns for 0 to {len(table) - 1}") from None
    return share if many or b is None else share.add_(b)


def scatter(delta: Tensor, ids: Tensor, size: int) -> Tensor:
    """sum_t x_t delta_t^T (size, hidden) for one-hot x_t: every delta is added to the row of its id.

    In float32 at least: bfloat16 has 8 significant bits, and a sum of a few hundred deltas would come to a stand. It is
    widened 16 steps at a time.
    """
    wide = torch.promote_types(delta.dtype, torch.float32)
    columns = delta.new_zeros(size, delta.shape[2], dtype=wide)
    if delta.dtype is wide:
        return columns.index_add_(0, ids.reshape(-1), delta.flatten(0, 1))
    for some, their_ids in zip(delta.split(16), ids.split(16), strict=True):
        columns.index_add_(0, their_ids.reshape(-1), some.flatten(0, 1).to(wide))
    return columns


# ---- Both walks through a window on numpy, for steps so small that calling an operation costs as much as ...


def suits(hidden: Tensor) -> bool:
    """Whether steps of hidden (time, batch, hidden) are of this kind.

    From 32,768 numbers a step on, calling an operation no longer counts beside computing it.
    """
    small = hidden[0].numel() < 32_768 and hidden.dtype in (torch.float32, torch.float64)
    return small and in_main_memory(hidden)


def numpy_multiplies(rows: int, n: int) -> bool:
    """Whether numpy multiplies (rows, n) by (n, n) faster than torch.

    Up to a million multiplications its OpenBLAS takes the matrices as they lie, where MKL lays them out first; on one
    thread, though. Microseconds of a step of c + a M, one AVX-512 core, addmm and numpy: 32 rows, n = 128: 12.9, 10.8;
    50 rows: 19.5, 16.0; 64 rows, n = 256 (4 million): 86, 87.
    """
    return torch.get_num_threads() == 1 and rows * n * n <= 1_000_000


class _Affine:
    """(t, c, a) -> c + a M: by numpy in memory of one step, by torch in step t of `into`, where c may stand.

    `steps` are those of `into` as `a` is taken, `arrays` the same in numpy.
    """

    def __init__(self, M: Tensor, into: Tensor) -> None:
        self.numpy = numpy_multiplies(*into.shape[1:])
        self.arrays = list(into.numpy())
        self.steps: Sequence[Any] = self.arrays if self.numpy else into.unbind(0)
        self.M: Any = M.numpy() if self.numpy else M
        self.sum = np.empty_like(self.arrays[0])

    def __call__(self, t: int, c: np.ndarray, a: Any) -> np.ndarray:
        if self.numpy:
            np.matmul(a, self.M, self.sum)
            return np.add(self.sum, c, self.sum)
        into = self.arrays[t]
        if into is not c:
            np.copyto(into, c)  # faster than addmm from one tensor into another
        self.steps[t].addmm_(a, self.M)
        return into


def forward(hidden: Tensor, M: Tensor, h_0: Tensor | None, nonlinearity: str, order: Sequence[int]) -> None:
    """c_t -> h_t, in place in hidden (time, batch, hidden); M = W^T, `order` of the steps."""
    affine = _Affine(M, hidden)
    h, steps = affine.arrays, affine.steps
    f: Callable[..., Any] = np.tanh if nonlinearity == "tanh" else _relu
    h_prev: Any = h_0 if h_0 is None or not affine.numpy else h_0.detach().numpy()
    for t in order:
        f(h[t] if h_prev is None else affine(t, h[t], h_prev), h[t])
        h_prev = steps[t]


def backward(
    delta: Tensor,
    grad_hidden: Tensor,
    grad_h_n: Tensor,
    M: Tensor,
    hidden: Tensor,
    nonlinearity: str,
    order: Sequence[int],
) -> None:
    """g_t -> delta_t, written into delta, which may be grad_hidden; M = W, `order` of the steps, the last one first."""
    affine = _Affine(M, delta)
    into, steps, h = affine.arrays, affine.steps, list(hidden.numpy())
    grads = into if delta is grad_hidden else list(grad_hidden.numpy())
    slope, f_slope = np.empty_like(h[0]), _tanh_slope if nonlinearity == "tanh" else np.sign
    delta_next: Any = None
    for t in order:
        g_t = grads[t] + grad_h_n.numpy() if delta_next is None else affine(t, grads[t], delta_next)
        f_slope(h[t], slope)
        np.multiply(slope, g_t, into[t])
        delta_next = steps[t]


def _relu(z: np.ndarray, out: np.ndarray) -> None:
    np.maximum(z, 0, out=out)


def _tanh_slope(h: np.ndarray, out: np.ndarray) -> None:
    np.multiply(h, h, out)
    np.subtract(1, out, out)


# ---- One recurrent layer over a whole window, fast: forward, backward, and the gradients from all deltas.

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
    if suits(hidden) and numpy_multiplies(*hidden.shape[1:]):
        forward(hidden, recur.M, h_0, nonlinearity, order)
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
    if suits(hidden) and not recur.packed:
        grad_hidden = grad_hidden.to(hidden.dtype).contiguous()
        delta = grad_hidden if spend else torch.empty_like(hidden)
        backward(delta, grad_hidden, grad_h_n, recur.M, hidden, nonlinearity, order)
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
