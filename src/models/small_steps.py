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
