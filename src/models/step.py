"""The operations of which every step of a recurrence is made, each in the fastest form measured on a CPU.

    z_t = c_t + a M              `Affine`: M is W^T on the way forward and W on the way back, one for the whole window
    h_t = f(z_t)                 `Activation`
    delta_t = f'(z_t) * g_t      `ActivationBackward`

Beside every fast form stands a plain one, for other devices and precisions. Which is taken depends on sizes, dtype,
device and the number of threads, never on a clock, so that equal runs stay equal bit by bit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
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
