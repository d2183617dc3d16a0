"""Both walks through a window on numpy, for steps so small that calling an operation costs as much as computing it.

    forward     z = h_{t-1} W^T + c_t           h_t = f(z)                c_t = U x_t + b
    backward    g = delta_{t+1} W + g_t         delta_t = f'(z_t) * g     f' read off h_t: 1 - h_t^2, or h_t > 0

What a step makes on its way lies in memory of one step's size, which stays in the nearest cache, so that of a window
every number is read once and written once. step.py has the same for all devices, types and sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.models.step import in_main_memory


def suits(hidden: Tensor) -> bool:
    """Whether steps of hidden (time, batch, hidden) are of this kind.

    Above 32,768 numbers a step torch's operations, on all threads, are faster than numpy's on one.
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


class _Times:
    """a -> a M, into one and the same `out`; `rows` are a tensor's steps as this takes them."""

    def __init__(self, M: Tensor, out: Tensor) -> None:
        self.numpy = numpy_multiplies(*out.shape)
        self.M: Any = M.numpy() if self.numpy else M
        self.out: Any = out.numpy() if self.numpy else out

    def rows(self, x: Tensor) -> Sequence[Any]:
        return list(x.numpy()) if self.numpy else x.unbind(0)

    def __call__(self, a: Any) -> None:
        np.matmul(a, self.M, self.out) if self.numpy else torch.mm(a, self.M, out=self.out)


def forward(hidden: Tensor, M: Tensor, h_0: Tensor | None, nonlinearity: str, order: Sequence[int]) -> None:
    """c_t -> h_t, in place in hidden (time, batch, hidden); M = W^T, `order` of the steps."""
    out = torch.empty_like(hidden[0])
    times = _Times(M, out)
    z, h = out.numpy(), list(hidden.numpy())
    f: Callable[..., Any] = np.tanh if nonlinearity == "tanh" else _relu
    steps = times.rows(hidden)
    h_prev = None if h_0 is None else times.rows(h_0.detach().unsqueeze(0))[0]
    for t in order:
        h_t = h[t]
        if h_prev is None:
            f(h_t, h_t)
        else:
            times(h_prev)
            np.add(z, h_t, z)
            f(z, h_t)
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
    out, slope = torch.empty_like(hidden[0]), np.empty_like(hidden[0].numpy())
    times = _Times(M, out)
    g, h, grads, into = out.numpy(), list(hidden.numpy()), list(grad_hidden.numpy()), list(delta.numpy())
    f_slope = _tanh_slope if nonlinearity == "tanh" else np.sign
    steps = times.rows(delta)
    delta_next = None
    for t in order:
        if delta_next is None:
            np.add(grad_h_n.numpy(), grads[t], g)
        else:
            times(delta_next)
            np.add(g, grads[t], g)
        f_slope(h[t], slope)
        np.multiply(slope, g, into[t])
        delta_next = steps[t]


def _relu(z: np.ndarray, out: np.ndarray) -> None:
    np.maximum(z, 0, out=out)


def _tanh_slope(h: np.ndarray, out: np.ndarray) -> None:
    np.multiply(h, h, out)
    np.subtract(1, out, out)
