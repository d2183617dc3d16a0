"""All steps of a layer of up to 256 units in one kernel on a CUDA GPU, for float32, bfloat16 and float16.

    forward    h_t = f(z_t),  z_t = x_t + W h_{t-1}
    backward   delta_t = f'(z_t) * (g_t + W^T delta_{t+1}),  f' read off h_t: 1 - h_t^2, or h_t > 0

A program computes one stream; streams are independent, so none waits for another. It holds M (W, or W^T) in the
registers of its processor; of 256 x 256 a tenth does not fit and stays in its cache. Sums are in float32.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor


@triton.jit(do_not_specialize=["T", "B"])  # else a shorter last window triggers a recompile
def walk(  # type: ignore[no-untyped-def]
    x_ptr, h_ptr, M_ptr, start_ptr, T, B, H: tl.constexpr, P: tl.constexpr,
    BACKWARD: tl.constexpr, RELU: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Turn x_t into h_t, or g_t into delta_t, in place. P is a power of 2, at least H; M lies column by column."""
    b, i, j = tl.program_id(0), tl.arange(0, P), tl.arange(0, P)
    inside = i < H
    M = tl.load(M_ptr + i[:, None] + j[None, :] * H, mask=inside[:, None] & (j < H)[None, :], other=0.0).to(tl.float32)
    state = tl.load(start_ptr + b * H + i, mask=inside, other=0.0).to(tl.float32)
    at, move = ((T - 1 if REVERSE else 0) * B + b) * H, (-1 if REVERSE else 1) * B * H
    x_next = tl.load(x_ptr + at + i, mask=inside, other=0.0)
    h_next = tl.load(h_ptr + at + i, mask=inside, other=0.0)
    for step in range(T):
        x, h = x_next.to(tl.float32), h_next.to(tl.float32)
        there = inside & (step + 1 < T)  # prefetch the next step's inputs while this step computes
        x_next = tl.load(x_ptr + at + move + i, mask=there, other=0.0)
        if BACKWARD:
            h_next = tl.load(h_ptr + at + move + i, mask=there, other=0.0)
        z = x + tl.sum(M * state[None, :], axis=1)
        if BACKWARD:
            y = tl.where(h <= 0, 0.0, z) if RELU else (1 - h * h) * z
        else:
            y = tl.where(z <= 0, 0.0, z) if RELU else 1 - 2 / (1 + tl.exp(2 * z))  # tanh z
        rounded = y.to(x_ptr.dtype.element_ty)
        state = rounded.to(tl.float32)
        tl.debug_barrier()  # every thread has loaded x_next before one writes there
        tl.store(x_ptr + at + i, rounded, mask=inside)
        at += move


def launch(x: Tensor, M_T: Tensor, start: Tensor | None, h: Tensor | None, relu: bool, reverse: bool) -> None:
    """Run the kernel on x (time, batch, hidden), all contiguous: M_T the transpose of M, h only backward.

    `reverse`: from the last step to the first.
    """
    T, B, H = x.shape
    P = max(16, triton.next_power_of_2(H))
    # Zeros are passed, too: a second kernel without them would be compiled while a graph is captured, which fails
    start = x.new_zeros(B, H) if start is None else start
    with torch.cuda.device_of(x):
        walk[(B,)](
            x, x if h is None else h, M_T, start, T, B, H, P,
            h is not None, relu, reverse, num_warps={128: 4, 256: 8}.get(P, 1),
        )  # fmt: skip
