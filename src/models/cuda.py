"""The recurrences on a CUDA GPU: which algorithm cuDNN takes, and CUDA graphs of the loops over time.

There a step of a small network takes less time than Python needs to launch its kernels. So all steps of `manual` are
one Triton kernel where W fits into a processor (`triton_walk`); elsewhere the loop over time is captured once per shape
and launched as one CUDA graph: two kernels a step, no Python between them.

`stacked`, `lstm` and `gru` call cuDNN, whose algorithm torch picks from the sizes (`cudnn_algorithm`, the rules of
aten/src/ATen/native/cudnn/RNN.cpp). `layer_plan` says from sizes and precision alone when the layers are called one by
one, and how far the input of a layer is padded with zeros. Nothing in this file needs a GPU to be imported or tested.

Private of torch, in builds with CUDA alone (2.11; `make gpu` calls it): `torch._C._cuda_clearCublasWorkspaces`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.errors import first_line
from src.models.layers import WiredWindow, Wiring

WARM_UP = 3  # calls before a capture, in which libraries allocate what they keep
MOST_UNITS = 256  # of a layer in one kernel: above, W does not fit into one SM
SHORT = 8  # steps; a loop of fewer is not worth a graph
MOST_GRAPHS = 16  # captured loops that are kept, those used last
log = logging.getLogger(__name__)
_without_triton: list[str] = []  # why, once a kernel of ours could not be run
_streams: dict[int, Any] = {}  # of each device, the one stream on which everything is warmed up and captured


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Run what is inside on the stream of captures, after all that was launched before, and before all that follows.

    A capture must find autograd's nodes and the libraries' workspaces on its own stream. Nothing on a CPU.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        index = torch.cuda.current_device()
        if index not in _streams:
            _streams[index] = torch.cuda.Stream()
        stream = _streams[index]
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            torch.cuda.current_stream().wait_stream(stream)


def capture(function: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """Capture what `function` launches on a CUDA device; return what launches it again. Nothing runs at the capture.

    Memory that the function reads must stay where it is; what it allocates keeps its place in the graph's own pool.
    """
    graph = torch.cuda.CUDAGraph()
    # cuBLAS makes its workspace inside the graph's pool: Lightning frees those outside of it at the end of every run
    torch._C._cuda_clearCublasWorkspaces()
    try:
        with (
            side_stream(device),  # thread_local: another thread (NCCL's watchdog) may call CUDA meanwhile
            torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"),
        ):
            function()
    finally:
        torch._C._cuda_clearCublasWorkspaces()
    return graph.replay


class Loop:
    """A captured loop and the memory that it reads and writes."""

    def __init__(self, body: Callable[..., object], buffers: Sequence[Tensor | None]) -> None:
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not be written to in training
            self.buffers = [None if b is None else torch.empty_like(b, requires_grad=False).copy_(b) for b in buffers]
            device = cast(Tensor, buffers[0]).device
            with side_stream(device):
                for _ in range(WARM_UP):
                    body(*self.buffers)
            self.replay = capture(lambda: body(*self.buffers), device)

    def __call__(self, buffers: Sequence[Tensor | None]) -> None:
        """Run the loop on new contents; the result replaces that of the first buffer."""
        for own, given in zip(self.buffers, buffers, strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self.replay()
        cast(Tensor, buffers[0]).copy_(cast(Tensor, self.buffers[0]))


captured_loops: dict[Any, Loop | None] = {}  # of this process; None: it could not be captured


def takes_graph(hidden: Tensor) -> bool:
    """Whether a loop over hidden (time, batch, hidden) becomes a CUDA graph; within a capture it goes in as it is."""
    return hidden.is_cuda and len(hidden) >= SHORT and not torch.cuda.is_current_stream_capturing()


def run_loop(body: Callable[..., object], key: Any, *buffers: Tensor | None) -> None:
    """Call body(*buffers), which changes the first one in place, as a CUDA graph where that is possible.

    `key` says all that the body depends on beside the shapes, types and device of the buffers.
    """
    first, loop = cast(Tensor, buffers[0]), None
    if takes_graph(first):
        known = (key, *((b.shape, b.dtype, b.device) if b is not None else None for b in buffers))
        loop = captured_loops.pop(known) if known in captured_loops else captured_loop(body, buffers)
        captured_loops[known] = loop  # in the order of their last use
        if len(captured_loops) > MOST_GRAPHS:
            torch.cuda.synchronize(first.device)  # the GPU may still be at work on it
            del captured_loops[next(iter(captured_loops))]
    if loop is None:
        body(*buffers)
    else:
        loop(buffers)


def captured_loop(body: Callable[..., object], buffers: Sequence[Tensor | None]) -> Loop | None:
    """Return the loop as a CUDA graph, or None, with a warning, if it cannot be captured."""
    try:
        return Loop(body, buffers)
    except RuntimeError as error:
        log.warning("a loop over time could not be captured in a CUDA graph and runs without: %s", first_line(error))
        return None


def forward_steps(hidden: Tensor, W: Tensor, h_0: Tensor | None, nonlinearity: str, reverse: bool) -> None:
    """Turn U x_t + b into h_t = f(U x_t + b + W h_{t-1}), in place in hidden (time, batch, hidden)."""
    W_T, steps = W.t(), hidden.unbind(0)
    h_prev = h_0
    for h_t in steps[:: -1 if reverse else 1]:
        if h_prev is not None:
            h_t.addmm_(h_prev, W_T)
        h_t.tanh_() if nonlinearity == "tanh" else h_t.relu_()
        h_prev = h_t


def backward_steps(delta: Tensor, W: Tensor, h: Tensor, nonlinearity: str, reverse: bool) -> None:
    """Turn g_t into delta_t = f'(z_t) * (g_t + W^T delta_{t+1}), in place in delta (time, batch, hidden)."""
    order = range(len(delta))[:: 1 if reverse else -1]
    steps, states = delta.unbind(0), h.unbind(0)
    delta_next = None
    for t in order:
        dh_t = steps[t] if delta_next is None else steps[t].addmm_(delta_next, W)
        if nonlinearity == "relu":
            torch.ops.aten.threshold_backward.grad_input(dh_t, states[t], 0, grad_input=dh_t)
        else:
            torch.ops.aten.tanh_backward.grad_input(dh_t, states[t], grad_input=dh_t)
        delta_next = dh_t


def one_kernel(x: Tensor, M: Tensor, start: Tensor | None, h: Tensor | None, nonlinearity: str, reverse: bool) -> bool:
    """Make all steps in one kernel, `triton_walk.walk`; False, with nothing done, where it does not fit or run.

    `reverse`: from the last step to the first.
    """
    small = x.dtype in (torch.float32, torch.bfloat16, torch.float16) and x.size(2) <= MOST_UNITS
    if not small or x.numel() >= 2**31 or _without_triton:
        return False
    try:
        from src.models import triton_walk

        triton_walk.launch(x, M.t().contiguous(), start, h, nonlinearity == "relu", reverse)
    except Exception as error:  # of many kinds: there is no Triton, no C compiler for it, no code for this GPU
        _without_triton.append(first_line(error))
        log.warning("model=manual runs without its Triton kernel: %s", *_without_triton)
        return False
    return True


def forward_walk(hidden: Tensor, W: Tensor, h_0: Tensor | None, nonlinearity: str, reverse: bool) -> None:
    """`forward_steps`, as one kernel or as one CUDA graph where that is possible."""
    # contiguous, as in the graph's memory: cuBLAS may take another kernel for another layout, and round otherwise
    start = None if h_0 is None else h_0.contiguous()
    if not one_kernel(hidden, W, start, None, nonlinearity, reverse):
        body = partial(forward_steps, nonlinearity=nonlinearity, reverse=reverse)
        run_loop(body, ("forward", nonlinearity, reverse), hidden, W.contiguous(), start)


def backward_walk(delta: Tensor, W: Tensor, h: Tensor, grad_h_n: Tensor, nonlinearity: str, reverse: bool) -> None:
    """`backward_steps`, as one kernel or as one CUDA graph where that is possible."""
    delta[0 if reverse else -1].add_(grad_h_n)
    if not one_kernel(delta, W.t(), None, h, nonlinearity, not reverse):
        body = partial(backward_steps, nonlinearity=nonlinearity, reverse=reverse)
        run_loop(body, ("backward", nonlinearity, reverse), delta, W.contiguous(), h)


def sums_by_id(delta: Tensor, ids: Tensor, size: int) -> Tensor:
    """Return sum_t x_t delta_t^T (size, hidden) for one-hot x_t, as one product: adding by index has no fixed order."""
    rows = delta.flatten(0, 1)
    one_hot = (ids.reshape(1, -1) == torch.arange(size, device=ids.device).unsqueeze(1)).to(rows.dtype)
    return torch.mm(one_hot, rows, out=rows.new_empty(size, rows.shape[1]))


STANDARD, STATIC, SMALL_H = "STANDARD", "PERSIST_STATIC", "PERSIST_STATIC_SMALL_H"
SMALL = {"rnn": (384, 256), "lstm": (192, 128), "gru": (192, 128)}  # the largest H of SMALL_H: forward, backward
TILE = 128  # PERSIST_STATIC wants H and the input's size to be multiples of it


def cudnn_algorithm(
    kind: str, dtype: torch.dtype, hidden: int, input: int, batch: int, layers: int, forward: bool,
    capability: tuple[int, int] = (9, 0), processors: int = 132,  # an H100's
) -> str:  # fmt: skip
    """Return the algorithm that torch asks cuDNN for: `kind` is rnn, lstm or gru; one direction, nothing packed."""
    if dtype is not torch.float64 and hidden <= SMALL[kind][0 if forward else 1] and capability >= (6, 0):
        return SMALL_H
    fits = layers == 1 and hidden <= 1024 and hidden % TILE == 0 and input % TILE == 0
    fits &= batch % 8 == 0 and batch <= 128 and kind != "gru" and (kind == "lstm" or batch < 96 or hidden < 896)
    modern = capability >= (8, 0) and capability[1] != 6 and processors >= 98
    return STATIC if dtype is torch.float16 and fits and modern else STANDARD


def layer_plan(
    kind: str, dtype: torch.dtype, hidden: int, input: int, batch: int, layers: int, *, autocast: bool, dropout: bool
) -> tuple[bool, int]:
    """Return whether each layer is called apart, and the size that x is padded to: of sizes and precision alone.

    The layers are called one by one
    - under autocast: torch's wrapper of cuDNN computes in float16 there, also if bfloat16 is asked for;
    - with dropout between them: cuDNN's own has a state that no checkpoint holds, torch's generator has one that does;
    - if that makes a layer PERSIST_STATIC, which knows one layer only. There the input is padded with zeros to a
      multiple of 128, which adds zeros to sums; everywhere else it is as it was.
    """
    padded = -(-input // TILE) * TILE
    both = (cudnn_algorithm(kind, dtype, hidden, padded, batch, 1, forward) for forward in (True, False))
    static = all(algorithm == STATIC for algorithm in both)
    return autocast or static or (dropout and layers > 1), padded if static else input


def run_apart(
    rnn: nn.RNNBase,
    x: Tensor,
    state: Any,
    input: int,
    dtype: torch.dtype,
    layers: Sequence[Sequence[Tensor]] | None = None,
    window: WiredWindow | None = None,
) -> tuple[Tensor, Any]:
    """Run a torch.nn.RNN, LSTM or GRU of one direction layer by layer, in `dtype`; arguments and result as of `rnn`.

    x (time, batch, size) has `size` up to `input`, to which it is padded. A layer's weights are laid out in the
    order of cuDNN's own memory, which uses them without a copy. `layers`, U, W, b_ih, b_hh of each, and the wiring
    of `window` replace those of `rnn`.
    """
    layers = rnn.all_weights if layers is None else layers
    if window is None:
        own = Wiring(rnn.input_size, rnn.hidden_size, rnn.num_layers, dropout=rnn.dropout)
        window = own.window([W for _, W, *_ in layers], x.size(1), rnn.training)
    if x.size(-1) < input:
        x = F.pad(x, (0, input - x.size(-1)))
    x, hidden, parts = x.to(dtype), rnn.hidden_size, 2 if isinstance(rnn, nn.LSTM) else 1
    features, outputs = x, []
    given = (None,) * parts if state is None else state if isinstance(state, tuple) else (state,)
    ends: list[list[Tensor]] = [[] for _ in range(parts)]
    function: Callable[..., Any] = getattr(torch, rnn.mode.lower())  # torch.rnn_tanh, torch.lstm, ...
    for layer, ((U, _, *biases), W) in enumerate(zip(layers, window.recurrent, strict=True)):
        x = window.below(layer, x, features) if layer else x
        weights = [F.pad(U, (0, x.size(-1) - U.size(1))), W, *biases]
        flat = torch.cat([weight.flatten() for weight in weights]).to(dtype)
        views = [part.view(w.shape) for part, w in zip(flat.split([w.numel() for w in weights]), weights, strict=True)]
        h = [x.new_zeros(1, x.size(1), hidden) if s is None else s[layer : layer + 1].to(dtype).contiguous()
             for s in given]  # fmt: skip
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            x, *after = function(x, h if parts == 2 else h[0], views, rnn.bias, 1, 0.0, rnn.training, False, False)
        for known, end in zip(ends, after, strict=True):
            known.append(end)
        outputs.append(x)
    done = [torch.cat(known) for known in ends]
    return window.output(outputs), tuple(done) if parts == 2 else done[0]


def run_cudnn(rnn: nn.RNNBase, x: Tensor, state: Any, autocast: torch.dtype | None) -> tuple[Tensor, Any]:
    """Run torch's module on a GPU as `layer_plan` says: x (time, batch, input), `autocast` its dtype or None."""
    dtype = autocast or rnn.all_weights[0][0].dtype
    sizes = rnn.hidden_size, x.size(-1), x.size(1), rnn.num_layers
    kind, dropout = rnn.mode.partition("_")[0].lower(), bool(rnn.dropout) and rnn.training  # rnn, lstm or gru
    apart, padded = layer_plan(kind, dtype, *sizes, autocast=autocast is not None, dropout=dropout)
    if apart:
        return run_apart(rnn, x, state, padded, dtype)
    return cast("tuple[Tensor, Any]", rnn(x, state))
