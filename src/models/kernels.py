"""One recurrent layer over a whole window, in the fastest form measured on a CPU: forward, deltas, gradients.

    z_t = (U x_t + b) + W h_{t-1}                  `input_share` of all steps at once, then `Affine` with M = W^T
    h_t = f(z_t)                                   `Activation`
    delta_t = f'(z_t) * (g_t + W^T delta_{t+1})    `Affine` with M = W, then torch's tanh_backward, threshold_backward

Which form is taken depends on sizes, dtype, device and the number of threads, never on timing, so runs are repeatable.

What is private of torch (written for 2.13; tests/parity/test_bptt.py fails by name when one of them changes):

    torch.ops.mkldnn._is_mkldnn_bf16_supported   a product with a matrix that oneDNN has laid out once a window,
    torch.ops.mkldnn._reorder_linear_weight      which MKL else does at every step; numbers in `pays_to_pack`
    torch.ops.mkldnn._linear_pointwise
    torch.cpu._is_amx_tile_supported             see `on_intel`
    torch._C._are_functorch_transforms_active    torch.func cannot go through our autograd.Function and would fail
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from src.models.cuda import backward_walk, forward_walk, sums_by_id

Hidden = Float[Tensor, "time batch hidden"]
State = Float[Tensor, "batch hidden"]
LEAST_COLUMNS = 8  # of a thread's share of a window


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return U (hidden, input) and W (hidden, hidden), views of weight = [U W]."""
    hidden_size, both = weight.shape
    return weight.narrow(1, 0, both - hidden_size), weight.narrow(1, both - hidden_size, hidden_size)


def needs_plain_torch() -> bool:
    """Whether tracing, torch.compile or torch.func is at work, which must see each single operation."""
    return bool(torch.jit.is_tracing() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def autocast_dtype(weight: Tensor) -> torch.dtype | None:
    """Return autocast's dtype on the device of a tensor, None where it is off."""
    device = weight.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def in_main_memory(tensor: Tensor) -> bool:
    """Whether numpy and oneDNN can use the memory of this tensor: on the CPU, and no subclass."""
    return type(tensor) is Tensor and tensor.device.type == "cpu"


def multiplies_bf16() -> bool:
    """Whether this processor multiplies bfloat16; without, a step of 1 x 256 took 1,550 ms, in float32 69 (Zen 3)."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def on_intel() -> bool:
    """Whether this is an Intel processor with AMX, which no other make has: MKL's products are fast on it."""
    return bool(torch.cpu._is_amx_tile_supported())


def pays_to_pack(M: Tensor, rows: int) -> bool:
    """Whether oneDNN, with M laid out in blocks beforehand, multiplies (rows, n) by M (n, n) faster than addmm.

    Microseconds of a step of 64 rows on two AVX-512 cores, addmm and packed: float32, H = 256: 56, 65; 384: 130, 110;
    1024: 1,190, 680. bfloat16, H = 128: 27, 26; 1024: 428, 370. Packing itself takes 700 (float32, H = 512). Two of a
    Zen 3 (AVX2): 448: 306, 309; 1024: 2,023, 1,278; 32 rows, 448: 155, 181; a window of 2,048 rows pays from 384, too.
    GFLOP/s of two cores of a Xeon (AMX), 64 rows: float32, 512: 202, 154; 1024: 203, 229; bfloat16, 256: 127, 293.
    """
    if rows < 8 or not in_main_memory(M):
        return False
    if M.dtype is torch.bfloat16:
        return min(M.shape) >= 128 and multiplies_bf16()
    avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    least = 384 if rows >= 2048 else 1024 if on_intel() else 384 if avx512 else 640
    return M.dtype is torch.float32 and min(M.shape) >= least and torch.backends.mkldnn.is_available()


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
        """Return c + a M: in `out`, which may be c, or in a new tensor."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise.binary(a, c, self.M, None, "add")
        return c.addmm_(a, self.M) if c is out else torch.addmm(c, a, self.M, out=out)


def linear(x: Tensor, M: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x M^T + b of a whole window in new memory: x (time, batch, k), M (m, k), b (m,)."""
    rows = x.flatten(0, 1)
    if rows.shape[0] >= 1024 and pays_to_pack(M, rows.shape[0]):  # fewer rows do not pay for the packing
        # for an uncopied slice of [U W] oneDNN uses its reference loop, thousands of times slower
        packed = torch.ops.mkldnn._reorder_linear_weight(M, rows.shape[0])
        return torch.ops.mkldnn._linear_pointwise(x, packed, b, "none", [None], "")
    share = x.new_empty(*x.shape[:2], M.shape[0])
    out = share.flatten(0, 1)  # out= also keeps autocast away: the caller has chosen the dtype
    torch.mm(rows, M.t(), out=out) if b is None else torch.addmm(b, rows, M.t(), out=out)
    return share


def product(a: Tensor, b: Tensor, out: Tensor, add: bool = False) -> None:
    """Write a b into out, or add it: a (m, k), b (k, n), out (m, n) in their dtype or a wider one."""
    if out.dtype is a.dtype:
        out.addmm_(a, b, beta=float(add))
        return
    rounded = torch.mm(a, b, out=a.new_empty(out.shape))
    out.add_(rounded) if add else out.copy_(rounded)


def tanh_by_sigmoid(nonlinearity: str, W: Tensor) -> bool:
    """Whether tanh z = 2 sigmoid(2z) - 1 is taken, in float32 with AVX2: it is right within 2e-7, near zero as well.

    Microseconds of a step, numpy's tanh and this, one core of a Zen 3: 50 rows of 128: 49, 39; 64 of 512: 608, 519.
    """
    fits = nonlinearity == "tanh" and W.dtype is torch.float32 and in_main_memory(W)
    return fits and torch.backends.cpu.get_cpu_capability() == "AVX2"


class Activation:
    """z_t -> h_t = f(z_t), written into step t of hidden (time, batch, hidden); `twice`: tanh, from 2 z_t."""

    def __init__(self, nonlinearity: str, hidden: Tensor, twice: bool = False) -> None:
        self.relu, self.twice, self.minus_one = nonlinearity == "relu", twice, hidden.new_full((), -1.0)
        by_numpy = not self.relu and not twice and in_main_memory(hidden)  # with AVX-512 12 us, torch's tanh 86
        self.numpy = by_numpy and hidden.dtype in (torch.float32, torch.float64)
        self.steps: Sequence[Any] = list(hidden.numpy()) if self.numpy else hidden.unbind(0)
        half = by_numpy and hidden.dtype in (torch.bfloat16, torch.float16)
        self.wide = torch.empty(hidden.shape[1:], dtype=torch.float32) if half else None

    def __call__(self, t: int, z_t: Tensor | None) -> None:
        """Set hidden[t] = f(z_t); a z_t of None is in hidden[t] already."""
        h_t = self.steps[t]
        if self.numpy:
            np.tanh(h_t if z_t is None else z_t.numpy(), h_t)
            return
        z_t = h_t if z_t is None else z_t
        if self.relu:
            torch.clamp_min(z_t, 0, out=h_t)
        elif self.twice:
            torch.add(self.minus_one, torch.sigmoid(z_t, out=h_t), alpha=2, out=h_t)
        elif self.wide is not None:
            wide = self.wide.copy_(z_t).numpy()
            np.tanh(wide, wide)
            h_t.copy_(self.wide)
        else:
            torch.tanh(z_t, out=h_t)


def on_gpu(tensor: Tensor) -> bool:
    """Whether a plain Tensor (no subclass) is on a CUDA device."""
    return type(tensor) is Tensor and tensor.is_cuda


def input_share(inputs: Tensor, U: Tensor, b: Tensor | None, ids: Tensor | None = None) -> Tensor:
    """Return U x_t + b of all steps (time, batch, hidden) in new memory. IndexError for an id without a column."""
    if ids is not None:  # x_t is [inputs; one-hot id]
        features = inputs.shape[2]
        return input_share(ids, U[:, features:], b).add_(linear(inputs, U[:, :features]))
    if inputs.is_floating_point():
        return linear(inputs, U, b)
    share = U.new_empty(*inputs.shape, U.shape[0])
    many = inputs.numel() >= U.shape[1]
    table = U.t()  # a row an id
    if many:  # b is added once an id, not once a step
        table = (table if b is None else table + b).contiguous()
    torch.index_select(table, 0, inputs.reshape(-1), out=share.flatten(0, 1))
    return share if many or b is None else share.add_(b)


def scatter(delta: Tensor, ids: Tensor, size: int) -> Tensor:
    """Return sum_t x_t delta_t^T (size, hidden) for one-hot x_t, in float32 at least, 16 steps at a time."""
    wide = torch.promote_types(delta.dtype, torch.float32)
    if delta.is_cuda:
        return sums_by_id(delta, ids, size).to(wide)
    columns = delta.new_zeros(size, delta.shape[2], dtype=wide)
    if delta.dtype is wide:
        return columns.index_add_(0, ids.reshape(-1), delta.flatten(0, 1))
    for some, their_ids in zip(delta.split(16), ids.split(16), strict=True):
        columns.index_add_(0, their_ids.reshape(-1), some.flatten(0, 1).to(wide))
    return columns


def is_small(hidden: Tensor) -> bool:
    """Whether a step of hidden (time, batch, hidden) is so small that calling torch costs as much as computing it."""
    return hidden[0].numel() < 32_768 and hidden.dtype in (torch.float32, torch.float64) and in_main_memory(hidden)


def numpy_multiplies(rows: int, n: int) -> bool:
    """Whether numpy multiplies (rows, n) by (n, n) faster than torch: up to a million multiplications, on one thread.

    Microseconds of c + a M, one AVX-512 core, addmm and numpy: 32 rows, n = 128: 12.9, 10.8; 64, n = 256: 86, 87.
    """
    return torch.get_num_threads() == 1 and rows * n * n <= 1_000_000


def forward_small(hidden: Tensor, M: Tensor, h_0: Tensor | None, nonlinearity: str, order: Sequence[int]) -> None:
    """Turn U x_t + b into h_t, in place in hidden; M = W^T, `order` of the steps."""
    f: Callable[..., Any] = np.tanh if nonlinearity == "tanh" else lambda z, out: np.maximum(z, 0, out=out)
    h, W_T = list(hidden.numpy()), M.numpy()
    z_t = np.empty_like(h[0])
    h_prev = None if h_0 is None else h_0.detach().numpy()
    for t in order:
        f(h[t] if h_prev is None else np.add(np.matmul(h_prev, W_T, z_t), h[t], z_t), h[t])
        h_prev = h[t]


def backward_small(
    delta: Tensor, grads: Tensor, grad_h_n: Tensor, M: Tensor, hidden: Tensor, nonlinearity: str, order: Sequence[int]
) -> None:
    """Write delta_t into delta, which may be grads, g_t; M = W, `order` of the steps, the last one first."""
    by_numpy = numpy_multiplies(*hidden.shape[1:])
    W: Any = M.numpy() if by_numpy else M
    h, into = list(hidden.numpy()), list(delta.numpy())
    g = into if delta is grads else list(grads.numpy())
    steps: Sequence[Any] = into if by_numpy else delta.unbind(0)
    slope, memory, tanh = np.empty_like(h[0]), np.empty_like(h[0]), nonlinearity == "tanh"
    delta_next: Any = None
    for t in order:
        if delta_next is None:
            dh_t = g[t] + grad_h_n.numpy()
        elif by_numpy:
            dh_t = np.add(np.matmul(delta_next, W, memory), g[t], memory)
        else:
            dh_t = into[t]
            if dh_t is not g[t]:
                np.copyto(dh_t, g[t])  # faster than addmm from one tensor into another
            steps[t].addmm_(delta_next, W)
        np.subtract(1, np.multiply(h[t], h[t], slope), slope) if tanh else np.sign(h[t], slope)
        np.multiply(slope, dh_t, into[t])
        delta_next = steps[t]


def shares(hidden: Tensor) -> list[slice]:
    """Return the columns of hidden (time, batch, hidden) for each thread: all in one where a step is too small.

    The streams of a batch are independent, so each thread goes through the whole window with its own streams, and none
    waits for another; torch's threads wait at the end of every operation. For small steps the GIL dominates.
    """
    steps, batch, size = hidden.shape
    threads = min(torch.get_num_threads(), batch // LEAST_COLUMNS)
    if threads < 2 or steps < 8 or not pays_to_share(size) or not in_main_memory(hidden):
        return [slice(0, batch)]
    ends = [batch * i // threads for i in range(threads + 1)]
    return list(map(slice, ends, ends[1:]))


def pays_to_share(size: int) -> bool:
    """Whether the columns of a window of so many units are shared out to threads: with AVX-512, on an AMD.

    Milliseconds whole and in two halves: a forward pass (H = 512, T = 100, B = 64) on two cores of a Zen 5 (AVX-512):
    17.8, 11.4; a train step (B = 64) on two of a Zen 3: 2 x 384, T = 32: 68, 91; 2 x 1024, T = 128: 1,546, 1,612; on
    two of a Xeon (AMX): 2 x 512, T = 100: 179, 209 to 524.
    """
    return size >= 256 and torch.backends.cpu.get_cpu_capability() == "AVX512" and not on_intel()


def side_by_side(walk: Callable[[slice], None], parts: Sequence[slice]) -> None:
    """Call walk(part) for each part, in a thread each if there are several; raise what one of them raises."""
    if len(parts) == 1:
        walk(parts[0])
        return
    inference = torch.is_inference_mode_enabled()  # inference and grad mode are set per thread

    def run(part: slice) -> None:
        with torch.inference_mode(inference), torch.no_grad():
            walk(part)

    futures = [workers(len(parts)).submit(run, part) for part in parts]
    wait(futures)
    for future in futures:
        future.result()


@cache
def workers(count: int) -> ThreadPoolExecutor:
    """Return this process's threads for `side_by_side`, each of which computes alone, with one thread of torch's."""
    before, all_started = torch.get_num_threads(), Barrier(count + 1)

    def start() -> None:
        np.seterr(all="ignore")
        torch.set_num_threads(1)  # of this thread, and of threads that start later
        all_started.wait()

    pool = ThreadPoolExecutor(count, "unroll", start)
    for _ in range(count):
        pool.submit(int)
    all_started.wait()
    torch.set_num_threads(before)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.cache_clear)  # threads do not survive a fork


@np.errstate(all="ignore")  # as in torch, a number that underflows is zero, whatever the caller's np.seterr
def forward_window(
    inputs: Tensor, weight: Tensor, b: Tensor | None, h_0: Tensor | None, nonlinearity: str, reverse: bool,
    ids: Tensor | None = None,
) -> Hidden:  # fmt: skip
    """Return all h_t. U x_t + b is written into the memory that becomes hidden; a step turns z_t into h_t there."""
    if len(inputs) == 1 and h_0 is not None and inputs.is_floating_point() and ids is None:
        # a single step: one product with [x; h]
        z = linear(torch.cat([inputs[0], h_0], dim=1).unsqueeze(0), weight, b)
        Activation(nonlinearity, z)(0, None)
        return z
    U, W = split(weight)
    if twice := len(inputs) >= 4 and tanh_by_sigmoid(nonlinearity, W):  # fewer steps do not pay for twice the weights
        U, W, b = 2 * U, 2 * W, b if b is None else 2 * b  # gives 2z to the bit
    hidden = input_share(inputs, U, b, ids)
    if on_gpu(hidden):
        forward_walk(hidden, W, h_0, nonlinearity, reverse)
        return hidden
    order = range(len(hidden))[:: -1 if reverse else 1]
    parts = shares(hidden)
    affine = Affine(W.t(), rows=parts[0].stop, steps=len(hidden))

    def walk(columns: slice) -> None:
        part, h_prev = hidden[:, columns], None if h_0 is None else h_0[columns]
        if not twice and is_small(part) and numpy_multiplies(*part.shape[1:]):
            forward_small(part, affine.M, h_prev, nonlinearity, order)
            return
        f, steps = Activation(nonlinearity, part, twice), part.unbind(0)
        for t in order:
            h_t = steps[t]
            z_t = h_t if h_prev is None else affine(h_t, h_prev, h_t)
            f(t, None if z_t is h_t else z_t)
            h_prev = h_t

    side_by_side(walk, parts)
    return hidden


@np.errstate(all="ignore")
def backward_window(
    grad_hidden: Hidden, grad_h_n: State, weight: Tensor, hidden: Hidden, nonlinearity: str, reverse: bool, spend: bool
) -> Hidden:
    """Return all delta_t = dL/dz_t, in grad_hidden's memory if `spend`. f' is read off h: 1 - h^2, or h > 0."""
    _, W = split(weight)
    if on_gpu(hidden):
        delta = grad_hidden.to(hidden.dtype).contiguous() if spend else torch.empty_like(hidden).copy_(grad_hidden)
        backward_walk(delta, W, hidden, grad_h_n.to(hidden.dtype), nonlinearity, reverse)
        return delta
    order = range(len(hidden))[:: 1 if reverse else -1]
    parts = shares(hidden)
    affine = Affine(W, rows=parts[0].stop, steps=len(hidden))
    small = is_small(hidden[:, parts[0]]) and not affine.packed
    if spend or small or affine.packed:
        grad_hidden = grad_hidden.to(hidden.dtype).contiguous()
    else:  # addmm_ in place is faster than from one tensor into another, by more than one copy of all
        grad_hidden, spend = torch.empty_like(hidden).copy_(grad_hidden), True
    delta = grad_hidden if spend else torch.empty_like(hidden)

    def walk(columns: slice) -> None:
        into_all, g_all, h_all, g_n = delta[:, columns], grad_hidden[:, columns], hidden[:, columns], grad_h_n[columns]
        if small:
            in_place = delta is grad_hidden
            backward_small(into_all, into_all if in_place else g_all, g_n, affine.M, h_all, nonlinearity, order)
            return
        h, into = h_all.unbind(0), into_all.unbind(0)
        grads = into if spend else g_all.unbind(0)
        delta_next = None
        for t in order:
            dh_t = grads[t] + g_n if delta_next is None else affine(grads[t], delta_next, into[t])
            if nonlinearity == "relu":
                torch.ops.aten.threshold_backward.grad_input(dh_t, h[t], 0, grad_input=into[t])
            else:
                torch.ops.aten.tanh_backward.grad_input(dh_t, h[t], grad_input=into[t])
            delta_next = into[t]

    side_by_side(walk, parts)
    return delta


def gradients(
    delta: Hidden, inputs: Tensor, weight: Tensor, h_0: Tensor | None, h: Hidden, reverse: bool, needed: Sequence[bool],
    ids: Tensor | None = None,
) -> list[Tensor | None]:  # fmt: skip
    """Return dL/d(inputs, weight, bias, h_0) from all deltas, None where not needed; dweight, db at least float32."""
    U, W = split(weight)
    features, ids = (inputs.shape[2], ids) if inputs.is_floating_point() else (0, inputs)  # columns of U
    rows = delta.flatten(0, 1)
    wide = torch.promote_types(delta.dtype, torch.float32)
    first, later, earlier = (delta[-1], delta[:-1], h[1:]) if reverse else (delta[0], delta[1:], h[:-1])
    dx = dweight = db = dh_0 = None
    if needed[0]:
        dx = linear(delta, U[:, :features].t())
    if needed[1]:
        dweight = torch.empty_like(weight, dtype=wide)
        dU, dW = split(dweight)
        if features:
            product(rows.t(), inputs.reshape(-1, features), dU[:, :features])
        if ids is not None:
            columns = scatter(delta, ids, U.shape[1] - features)
            dU[:, features:].copy_(columns.t())
            db = columns.sum(0) if needed[2] else None  # every delta is in one of the columns
        product(later.flatten(0, 1).t(), earlier.flatten(0, 1), dW)
        if h_0 is not None:
            product(first.t(), h_0, dW, add=True)
    if needed[2] and db is None:
        db = rows.sum(0, dtype=wide)
    if needed[3]:
        dh_0 = torch.mm(first, W, out=torch.empty_like(first))
    return [dx, dweight, db, dh_0]
