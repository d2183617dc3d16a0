"""benchmark=peers: the train step of benchmark=models in other libraries: equal losses first, then times.

One network, one window of random characters, mean cross-entropy, Adam; the state is carried on without its gradient:

    h_t^l = tanh(U^l h_t^{l-1} + W^l h_{t-1}^l + b^l)        o_t = V h_t^L + c

Each library is in a process of its own, as XLA takes its number of threads once, when it starts. The processes take
turns, so that other load on the machine affects all.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from src.benchmarks.measuring import AT_LEAST, TURN, Size, table_lines, timed
from src.config.schema import BenchmarkOptions
from src.errors import counted
from src.process import complain, threads_for, use_threads
from src.training.machine import keep_memory

STEPS, CLOSE = 5, 1e-4  # steps of Adam, after each of which the losses must be as close as this
RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-8  # torch's defaults of Adam, and conf/optimizer/adam.yaml's
Array = Any  # of numpy or of JAX


class Problem(NamedTuple):
    """What every library is given, as arrays of numpy: float32, and ids (time, batch)."""

    size: Size
    parameters: list[np.ndarray]  # U, W, b of each layer, then V, c
    inputs: np.ndarray
    targets: np.ndarray

    def initial_state(self) -> list[np.ndarray]:
        return [np.zeros((self.size.batch_size, self.size.hidden_size), np.float32)] * self.size.num_layers


def problem_of(size: Size) -> Problem:
    """Return the weights and the window of benchmark=models."""
    from src.benchmarks.models import Step  # torch and Lightning, which other libraries' processes do without
    from src.models.convert import read_layers

    step = Step("manual", size)
    parameters = [part for layer in read_layers(step.model.recurrence) for part in layer]
    parameters += [p.detach() for p in step.model.readout.parameters()]
    return Problem(size, [p.numpy() for p in parameters], step.inputs.numpy(), step.targets.numpy())


def in_layers(parameters: list[Array]) -> list[tuple[Array, Array, Array]]:
    """Return (U, W, b) of each layer."""
    return list(zip(parameters[:-2:3], parameters[1:-2:3], parameters[2:-2:3], strict=True))


def adam(p: Array, g: Array, m: Array, v: Array, step: Array, sqrt: Callable[[Array], Array]) -> tuple[Array, ...]:
    """Return the parameter, m and v after a step with the gradient g (Kingma, Ba 2015, algorithm 1)."""
    m, v = m + (1 - BETA_1) * (g - m), v + (1 - BETA_2) * (g * g - v)
    return p - RATE / (1 - BETA_1**step) * m / (sqrt(v / (1 - BETA_2**step)) + EPSILON), m, v


def torch_peer(problem: Problem, name: str) -> Callable[[], float]:
    """Return the step of one of our three models, as benchmark=models has it; `stacked` is torch.nn.RNN."""
    from src.benchmarks.models import Step

    step = Step(name, problem.size)  # its weights are drawn from the seed of the problem

    def train() -> float:
        step()
        return float(step.loss)

    return train


class NumpyPeer:
    """Loops over time with one-hot inputs as in A. Karpathy's min-char-rnn.py (2015); with a batch, layers and Adam."""

    def __init__(self, problem: Problem) -> None:
        self.parameters = problem.parameters
        self.m, self.v = ([np.zeros_like(p) for p in self.parameters] for _ in range(2))
        one_hot = np.eye(problem.size.vocab_size, dtype=np.float32)
        self.x, self.y = one_hot[problem.inputs], one_hot[problem.targets]
        self.h, self.step = problem.initial_state(), 0

    def __call__(self) -> float:
        loss, gradients = self.gradients()
        self.step += 1
        new = map(partial(adam, step=self.step, sqrt=np.sqrt), self.parameters, gradients, self.m, self.v)
        self.parameters, self.m, self.v = map(list, zip(*new, strict=True))
        return loss

    def gradients(self) -> tuple[float, list[np.ndarray]]:
        """Return the loss and its gradients, and carry the state on."""
        layers, (V, c) = in_layers(self.parameters), self.parameters[-2:]
        h, p, loss = [self.h], [], 0.0
        for x_t, y_t in zip(self.x, self.y, strict=True):
            h_t: list[np.ndarray] = []
            for (U, W, b), h_prev in zip(layers, h[-1], strict=True):
                h_t.append(np.tanh((h_t[-1] if h_t else x_t) @ U.T + h_prev @ W.T + b))
            o_t = h_t[-1] @ V.T + c
            e = np.exp(o_t - o_t.max(axis=1, keepdims=True))
            h.append(h_t)
            p.append(e / e.sum(axis=1, keepdims=True))
            loss -= float(np.log((p[-1] * y_t).sum(axis=1)).sum())
        gradients = [np.zeros_like(one) for one in self.parameters]
        d_layers, (dV, dc) = in_layers(gradients), gradients[-2:]
        count = self.y.shape[0] * self.y.shape[1]
        from_next = [np.zeros_like(one) for one in self.h]
        for t in reversed(range(len(self.x))):
            do_t = (p[t] - self.y[t]) / np.float32(count)
            dV += do_t.T @ h[t + 1][-1]
            dc += do_t.sum(axis=0)
            dh_t = do_t @ V
            for layer in reversed(range(len(layers))):
                (U, W, _), (dU, dW, db) = layers[layer], d_layers[layer]
                delta = (1 - h[t + 1][layer] ** 2) * (dh_t + from_next[layer])
                dU += delta.T @ (h[t + 1][layer - 1] if layer else self.x[t])
                dW += delta.T @ h[t][layer]
                db += delta.sum(axis=0)
                from_next[layer] = delta @ W
                dh_t = delta @ U if layer else dh_t
        self.h = h[-1]
        return loss / count, gradients


class Compiled:
    """A step that XLA has compiled beforehand: `function(state, inputs, targets)` returns the state and the loss."""

    def __init__(self, function: Callable[..., Any], state: Any, inputs: np.ndarray, targets: np.ndarray) -> None:
        self.jax: Any = import_module("jax")
        self.state, self.window = state, [self.jax.numpy.asarray(ids) for ids in (inputs, targets)]
        started = time.perf_counter()
        jitted = self.jax.jit(function, donate_argnums=0)  # the new state is written into the memory of the old one
        self.function = jitted.lower(self.state, *self.window).compile()
        self.compile_seconds = time.perf_counter() - started

    def __call__(self) -> float:
        self.state, loss = self.jax.block_until_ready(self.function(self.state, *self.window))
        return float(loss)


def jax_peer(problem: Problem) -> Compiled:
    """Return the step in JAX: a jax.lax.scan over time a layer, its input share U x_t + b of all steps before it."""
    jax: Any = import_module("jax")
    jnp = jax.numpy

    def loss_of(parameters: list[Array], h_0: list[Array], inputs: Array, targets: Array) -> tuple[Array, list[Array]]:
        hidden, ends = None, []
        for (U, W, b), h in zip(in_layers(parameters), h_0, strict=True):

            def step(h_prev: Array, share: Array, W: Array = W) -> tuple[Array, Array]:
                h_t = jnp.tanh(share + h_prev @ W.T)
                return h_t, h_t

            end, hidden = jax.lax.scan(step, h, (U.T[inputs] if hidden is None else hidden @ U.T) + b)
            ends.append(end)
        log_p = jax.nn.log_softmax(hidden @ parameters[-2].T + parameters[-1])
        return -jnp.take_along_axis(log_p, targets[..., None], axis=-1).mean(), ends

    def train(state: Any, inputs: Array, targets: Array) -> tuple[Any, Array]:
        parameters, m, v, count, h = state
        (loss, h), g = jax.value_and_grad(loss_of, has_aux=True)(parameters, h, inputs, targets)
        new = map(partial(adam, step=count + 1, sqrt=jnp.sqrt), parameters, g, m, v)
        return [*map(list, zip(*new, strict=True)), count + 1, h], loss

    start = problem.parameters, *([np.zeros_like(p) for p in problem.parameters] for _ in range(2))
    state = jax.tree.map(jnp.array, [*start, np.float32(0), problem.initial_state()])
    return Compiled(train, state, problem.inputs, problem.targets)


def keras_peer(problem: Problem) -> Compiled:
    """Return the step in Keras 3 on JAX as its guide has it, the state in and out: stateful=True loses it (3.15)."""
    jax, keras = import_module("jax"), import_module("keras")
    units, layers, steps, batch, vocab_size = problem.size
    x, *h_0 = (keras.Input(batch_shape=(batch, *rest)) for rest in ((steps, vocab_size), *[(units,)] * layers))
    hidden, ends = x, []
    for h in h_0:
        hidden, end = keras.layers.SimpleRNN(units, return_sequences=True, return_state=True)(hidden, initial_state=h)
        ends.append(end)
    model = keras.Model([x, *h_0], [keras.layers.Dense(vocab_size)(hidden), *ends])
    model.set_weights([p.T for p in problem.parameters])
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Keras adds epsilon before the correction of v: this is EPSILON after it, within a factor of two in the first steps
    optimizer = keras.optimizers.Adam(RATE, BETA_1, BETA_2, EPSILON * (1 - BETA_2**3) ** 0.5)
    optimizer.build(model.trainable_variables)

    def loss_and_rest(trainable: Any, others: Any, h: Any, inputs: Array, targets: Array) -> tuple[Array, Any]:
        x = jax.nn.one_hot(inputs, vocab_size)
        (logits, *h), others = model.stateless_call(trainable, others, [x, *h], training=True)
        return loss_of(targets, logits), (others, h)

    def train(state: Any, inputs: Array, targets: Array) -> tuple[Any, Array]:
        trainable, moments, *rest = state
        (loss, rest), g = jax.value_and_grad(loss_and_rest, has_aux=True)(trainable, *rest, inputs, targets)
        trainable, moments = optimizer.stateless_apply(moments, g, trainable)
        return [trainable, moments, *rest], loss

    parts = model.trainable_variables, optimizer.variables, model.non_trainable_variables
    state = [*([v.value for v in part] for part in parts), [*map(jax.numpy.array, problem.initial_state())]]
    return Compiled(train, state, problem.inputs.T, problem.targets.T)


OURS = ("manual", "stacked", "cell")
PEERS: dict[str, Callable[[Problem], Any]] = {name: partial(torch_peer, name=name) for name in OURS}
PEERS |= {"jax": jax_peer, "keras": keras_peer, "numpy": NumpyPeer}
NEEDED = {"jax": ("jax",), "keras": ("keras", "jax"), "numpy": ("numpy",)}  # the others need torch
at_work: list[Callable[[], float]] = []  # in the process of a peer: its step


def prepare(name: str, threads: int) -> None:
    """Set up the process of a peer: threads, memory as in training, and its libraries."""
    os.environ |= {"NPROC": str(threads), "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}  # XLA starts NPROC threads
    keep_memory()
    if name in OURS:
        use_threads(threads)
    threadpool_limits(threads, user_api="blas")  # numpy's
    import_module("src.benchmarks.models" if name in OURS else name)


def start(name: str, problem: Problem) -> dict[str, Any]:
    """Build a peer in this process; return the losses of its first steps, the seconds of compilation, and versions."""
    at_work.clear()  # of the size before
    at_work.append(peer := PEERS[name](problem))
    found = {"losses": [peer() for _ in range(STEPS)], "compile_s": getattr(peer, "compile_seconds", None)}
    return {**found, "versions": {library: version(library) for library in NEEDED.get(name, ("torch",))}}


def turn() -> list[float]:
    """Return the seconds of the next steps of the peer in this process: of one, or of TURN seconds of short ones."""
    seconds = [timed(at_work[0])]
    if seconds[0] < TURN:  # it was not a fair one: it filled the caches again and woke the threads
        seconds.clear()
        while sum(seconds) < TURN:
            seconds.append(timed(at_work[0]))
    return seconds


def run_peers(options: BenchmarkOptions, sizes: Sequence[Size]) -> Iterator[dict[str, Any]]:
    """Yield the results of each size, as plain data; `manual`, to which all are compared, is always measured."""
    names = list(dict.fromkeys(["manual", *(options.models or [])]))
    missing = [name for name in names if not all(map(find_spec, NEEDED.get(name, ())))]
    if missing:
        complain(f"{', '.join(missing)}: not installed, so not measured; to install: pip install -e '.[peers]'")
    pools: dict[tuple[str, int], ProcessPoolExecutor] = {}
    with ExitStack() as stack:
        for size in sizes:
            threads = threads_for(options.threads or "auto", size.hidden_size)
            here = [name for name in names if name not in missing]
            for name in here:
                if (name, threads) not in pools:
                    pool = ProcessPoolExecutor(1, get_context("spawn"), prepare, (name, threads))
                    pools[name, threads] = stack.enter_context(pool)
                    pool.submit(int)  # starts it, beside the others
            problem = problem_of(size)
            peers: dict[str, dict[str, Any]] = {}
            times: dict[str, list[float]] = {}
            for name in here:
                peers[name] = found = pools[name, threads].submit(start, name, problem).result()
                both = zip(found["losses"], peers["manual"]["losses"], strict=True)
                found["difference"] = float(np.abs([loss - ours for loss, ours in both]).max())
                if found["difference"] <= CLOSE:  # NaN is not
                    times[name] = found["seconds"] = []
            end, done = time.perf_counter() + (options.seconds or 0), 0
            while done < (options.repeats or AT_LEAST) or (options.repeats is None and time.perf_counter() < end):
                for name in list(times)[:: -1 if done % 2 else 1]:
                    times[name] += pools[name, threads].submit(turn).result()
                done += 1
            for name, seconds in times.items():
                peers[name] |= {"min_ms": min(seconds) * 1e3, "median_ms": statistics.median(seconds) * 1e3}
                peers[name]["ratio"] = peers[name]["median_ms"] / peers["manual"]["median_ms"]
            yield {**size._asdict(), "threads": threads, "missing": missing, "peers": peers}


def peers_table(found: dict[str, Any]) -> list[str]:
    """Return the table of one size."""
    peers, size = found["peers"], Size(*(found[field] for field in Size._fields))
    columns = {
        "min_ms": ("min ms", ".2f"), "median_ms": ("median", ".2f"), "ratio": ("x manual", ".2f"),
        "difference": ("loss diff.", ".0e"), "compile_s": ("compile s", ".1f"),
    }  # fmt: skip
    versions = {name: " ".join(map(" ".join, one["versions"].items())) for name, one in peers.items()}
    rows = [[name, *map(one.get, columns), versions[name]] for name, one in peers.items()]
    lines = table_lines({"a step of": "", **dict(columns.values()), "version": ""}, rows)
    apart = [name for name, one in peers.items() if "ratio" not in one]
    lines += [f"  {name}: its losses differ by more than {CLOSE}, so it was not timed" for name in apart]
    faster = [f"{name} ({one['ratio']:.2f})" for name, one in peers.items() if one.get("ratio", 1) < 1]
    last = f"  faster than manual: {', '.join(faster) or 'none'}"
    return [f"{size}; {counted(found['threads'], 'threads')}", *lines, last]
