"""`budget=10min`: the width, steps and dropout with which a network uses a given time, on this text and machine.

What the user has set stays. The rest is the recipe of experiment=tiny_shakespeare, and a rule that was fitted to a grid
of widths, steps and dropout on eight texts of 100 kB to 3 MB (experiments/budget):

    epochs wanted   E(H, n) = 7.4 (H / 448)^1.5 (10^6 / n)^0.85    n characters to train on, H units, two layers, and
                              9.0 (H / 448)     (10^6 / n)^0.85    in windows of 64 streams
    learning rate   0.0027 (448 / H), at most 0.006; for more than 448 units 0.0027 (448 / H)^1.5
    dropout         0.15 x parameters / characters, from a ratio of 0.8; less below 30 epochs, none up to 10

The widest network that can make its E epochs in the time is chosen, and trains for all of it; steps are timed at a few
widths. The rule for 64 streams, absent from the grid, follows a few runs on 10^6 characters. `budget=auto` plans
AUTO seconds and times nothing. A text with fewer than FEW examples of each character (a Chinese one) gets SPARSE.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim import Optimizer

from src.config.schema import IMPLEMENTATIONS, Config, duration, flatten, set_value, to_plain
from src.data.batching import LineSplit, TextSplit, fitted, plan
from src.data.corpus import Corpus
from src.errors import UserError, counted
from src.models.kernels import multiplies_bf16
from src.models.language_model import build_model, detached
from src.process import threads_for, use_threads
from src.training.module import build_optimizer

RECIPE: dict[str, Any] = {
    "data.seq_len": None,
    "data.offset": "random",
    "scheduler.name": "cosine",
    "trainer.gradient_clip_val": 0.2,
}
RECIPE |= {"optimizer.name": "adamw", "optimizer.decay": "matrices", "optimizer.betas": [0.9, 0.99]}
WIDTHS = (32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 2048)
TIMED = (32, 128, 256, 512, 1024)  # a step is timed at these widths, until one takes longer than SLOW seconds
SLOW = 0.5
MOST_EPOCHS = 40  # more of them, or of the next, was no better on 20,000 to 100,000 characters (experiments/budget)
SHARE = 0.93  # of the time that is planned for: the rest is a margin
# Estimates in seconds, not fitted: start and end; the diagnostics at a validation of 256 units, and where they draw
START, LOOK, FIGURES = 6.0, 0.35, 3.0
LONG = 400_000  # characters, from which on a window has 64 streams in place of 32
SHORT = 120  # seconds, below which it has 32 there too (experiments/budget); in two minutes 32: 1.614, 64: 1.592
LEAST = 100  # steps, or one epoch of a short text: a shorter budget is refused
FEW = 212  # up to here one layer was better on most texts that were tried, above it two or neither (experiments/budget)
SPARSE = {"model.num_layers": 1, "model.dropout_mask": "window", "model.input_scale": 12.0}
AUTO = 190  # seconds of training that budget=auto plans, at the speed of `seconds_a_character`


def choose(config: Config, corpus: Corpus) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration with the keys of `config.chosen` set so that the run ends on time, and lines about it.

    UserError if the time is too short for LEAST steps of the smallest network, or the run has several processes.
    """
    if config.budget == "auto":
        return choose_by_size(config, corpus)
    if config.trainer.processes > 1:
        raise UserError(f"budget={config.budget}: steps are timed in one process; use trainer.devices=1")
    started, available = time.perf_counter(), duration(config.budget or "")
    config, free = copy.deepcopy(config), set(config.chosen or ())
    n = corpus.splits["train"].transitions
    few = set_up_layers(config, free, corpus, n)
    set_free(config, free, RECIPE | ({"data.batch_size": 32} if available < SHORT and n >= LONG else {}))
    config.data, notes = fitted(config.data, corpus.splits["train"])
    timed = TIMED if "model.hidden_size" in free else (config.model.hidden_size,)
    speed = Speed(config, corpus, timed)
    if "trainer.precision" in free and config.trainer.precision == "32-true" and speed.bf16_is_faster():
        config.trainer.precision = "bf16-mixed"
        set_free(config, free, {"data.batch_size": 64} if n >= LONG else {})  # 64 rows are what makes bfloat16 fast
        speed = Speed(config, corpus, timed)
    left = SHARE * available - (time.perf_counter() - started)
    fitting, trainer, an_epoch = [], config.trainer, speed.steps_an_epoch
    fixed = "trainer.max_epochs" not in free
    if not fixed and "trainer.max_steps" not in free and trainer.max_steps >= 0:
        trainer.max_epochs, fixed = math.ceil(trainer.max_steps / an_epoch) or 1, True
    whole = 1 if "trainer.max_steps" in free else an_epoch  # max_steps=-1 as typed: no part of an epoch
    least = trainer.run_steps(an_epoch) if fixed else max(whole, min(LEAST, an_epoch))
    widths = [width for width in WIDTHS if fits(width, n, few)] or WIDTHS[:1]
    for width in widths if "model.hidden_size" in free else (config.model.hidden_size,):
        taken = partial(seconds_of, config, corpus, speed, width)
        most = range(an_epoch * (sparse_epochs(n) if few else MOST_EPOCHS) + 1)
        steps = least if fixed else (bisect_right(most, left, key=taken) - 1) // whole * whole
        fitting.append((width, steps, taken(max(steps, least))))
    possible = [one for one in fitting if one[2] <= left or (fixed and len(fitting) == 1)]
    if not possible:
        width, _, seconds = fitting[0]
        whole_time = math.ceil((seconds + SHARE * available - left) / SHARE)
        what = f"{counted(least, 'steps')} of {width} units take about {whole_time} s here"
        raise UserError(f"budget={config.budget}: {what}; give more time")
    wanted = [(w, s, t) for w, s, t in possible if s / an_epoch >= wanted_epochs(w, n, config.data.window[1], few)]
    width, steps, seconds = wanted[-1] if wanted else possible[0]
    set_free(config, free, {"model.hidden_size": width, "scheduler.warmup_steps": min(100, steps // 10)})
    if not fixed:
        trainer.max_epochs = math.ceil(steps / an_epoch)
        set_free(config, free, {"trainer.max_steps": steps})
    set_regularisation(config, free, few, corpus)
    return config, described(config, n, few, speed, steps, seconds + time.perf_counter() - started) + notes


def choose_by_size(config: Config, corpus: Corpus) -> tuple[Config, tuple[str, ...]]:
    """Return what `budget=auto` chooses: by the size of the text, without a clock, so that equal runs are equal."""
    config, free, n = copy.deepcopy(config), set(config.chosen or ()), corpus.splits["train"].transitions
    few, symbols = set_up_layers(config, free, corpus, n), len(corpus.vocabulary)
    streams = config.data.window[1]
    possible = {w: int(AUTO / (n * seconds_a_character(w, symbols, streams))) for w in WIDTHS if w >= 128}
    wanted = [w for w in possible if fits(w, n, few) and possible[w] >= max(1, wanted_epochs(w, n, streams, few))]
    width = max(wanted, default=128)
    epochs = max(1, min(possible[width], sparse_epochs(n) if few else MOST_EPOCHS))
    if config.trainer.max_steps >= 0:
        train = corpus.splits["train"]
        with_data = dataclasses.replace(config, data=fitted(config.data, train)[0])
        epochs = math.ceil(config.trainer.max_steps / steps_an_epoch(config, windows_of(with_data, train)[0])) or 1
    # Epochs of the width chosen for this text: a sweep over widths has equal steps
    set_free(config, free, {"model.hidden_size": width, "trainer.max_epochs": epochs})
    set_regularisation(config, free, few, corpus)
    values = dict(flatten(to_plain(config)))
    set_here = ", ".join(f"{key}={values[key]}" for key in config.chosen or () if values[key] is not None)
    return config, (f"by the size of the text (budget=auto): {set_here}",) if set_here else ()


def steps_an_epoch(config: Config, windows: int) -> int:
    """Return the optimizer steps of an epoch of so many windows."""
    return math.ceil(config.trainer.windows_an_epoch(windows) / config.trainer.accumulate_grad_batches)


def set_free(config: Config, free: set[str], values: Mapping[str, Any]) -> None:
    """Set, in place, those of the values whose keys are free."""
    for key in values.keys() & free:
        set_value(config, key, values[key])


def set_regularisation(config: Config, free: set[str], few: bool, corpus: Corpus) -> None:
    """Set, in place, the rate, dropout and weight decay that suit the width; with SPARSE they follow other rules."""
    width, n = config.model.hidden_size, corpus.splits["train"].transitions
    set_free(config, free, {"optimizer.lr": round(min(0.013, 1.7 / width), 3) if few else learning_rate(width)})
    sparse = round(0.5 * min(1.0, (180_000 / n) ** 0.75), 2)
    set_free(config, free, {"model.dropout": sparse if few else dropout(config, len(corpus.vocabulary), n)})
    if config.optimizer.name == "adamw":  # 3 epochs of War and Peace end at 1.363 with 0.01 and at 1.372 with 0.1
        set_free(config, free, {"optimizer.weight_decay": 0.1 if config.model.dropout else 0.01})


def set_up_layers(config: Config, free: set[str], corpus: Corpus, n: int) -> bool:
    """Set, in place, the layers and streams that are free; return whether the text has few examples of a character."""
    own = np.unique(corpus.splits["train"].ids) if config.init_from else corpus.vocabulary  # has those of both texts
    few = config.model.name in IMPLEMENTATIONS and n < FEW * len(own)
    values: dict[str, Any] = {"model.num_layers": 2, "data.batch_size": 64 if n >= LONG else None}
    if config.model.name in IMPLEMENTATIONS:
        values |= {"model.init": "orthogonal", "model.input_scale": 3.0, "model.interlayer_scale": 1.73}
    if few:
        step_mask = "model.dropout_mask" not in free and config.model.dropout_mask != "window"
        two = step_mask or config.model.skip is not None  # both act between layers
        values |= SPARSE | ({"model.num_layers": 2} if two else {})
    if config.model.readout != "identity":
        values["model.readout_bias"] = "unigram"
    set_free(config, free, values)
    if config.model.num_layers == 1 and "model.interlayer_scale" in free:
        config.model.interlayer_scale = None
    return few


def described(config: Config, n: int, few: bool, speed: Speed, steps: int, taken: float) -> tuple[str, ...]:
    """Return what was chosen, and why."""
    model, (length, streams) = config.model, config.data.window
    what = f"{model.name}, {counted(model.num_layers, 'layers')} of {model.hidden_size} units"
    what += f", dropout {model.dropout:g}; {steps / speed.steps_an_epoch:.2g} epochs ({counted(steps, 'steps')})"
    how = f"{config.optimizer.name} with lr {config.optimizer.lr:g}, schedule {config.scheduler.name}"
    wanted = f"{n:,} characters need {wanted_epochs(model.hidden_size, n, streams, few):.2g} epochs of this width"
    return (
        f"budget={config.budget}: {what}, {how}, windows of {length} x {streams}, {config.trainer.precision}",
        f"a step takes {1e3 * speed(model.hidden_size):.1f} ms here, and {wanted}; expected time {taken:.0f} s",
    )


def behind(config: Config, seconds: float) -> str | None:
    """Return a line about a run that took over a tenth longer than its budget; `seconds` are those of training."""
    if config.budget in (None, "auto") or seconds + START <= 1.1 * duration(config.budget):
        return None
    took = f"budget={config.budget}, and it took about {seconds + START:.0f} s"
    return f"{took}: the machine was slower, or other keys take more"


def wanted_epochs(width: int, n: int, streams: int, few: bool = False) -> float:
    """Return how often a network of this width should read n characters."""
    if few:
        return sparse_epochs(n) / 3
    at_a_million = 7.4 * (width / 448) ** 1.5 if streams < 64 else 9 * width / 448
    return min(0.75 * MOST_EPOCHS, at_a_million * (1e6 / max(n, 1)) ** 0.85)


def seconds_a_character(width: int, vocab_size: int, streams: int) -> float:
    """Return what two layers take in float32, in windows of 32 x 32 or 64: fitted to times on two cores of Zen 3, AVX2.

    0.55 with AVX-512 is a guess from one run on Zen 5 (8 epochs of 448 units in 242 s). Equal machines choose the same.
    """
    seconds = 4e-6 + 8.2e-11 * (3 * width**2 + width * vocab_size) + 4e-9 * vocab_size
    return seconds * (0.55 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 0.66 if streams >= 64 else 1)


def sparse_epochs(n: int) -> int:
    """Return how often to read a text with few examples of each character: about 600 windows of 32 x 32, 10 to 20."""
    return min(20, max(10, round(600 * 1024 / n)))


def fits(width: int, n: int, few: bool) -> bool:
    """Whether n characters are enough for two layers (at most 3 weights a character) or the layer of SPARSE."""
    return width in (128, 256)[: 1 + (n >= 250_000)] if few else width**2 <= n


def learning_rate(width: int) -> float:
    """Return the highest rate of a cosine schedule, for adamw."""
    return round(min(0.006, 0.0027 * (448 / width) ** (1.5 if width > 448 else 1.0)), 5)


def dropout(config: Config, vocab_size: int, n: int) -> float:
    """Return the dropout between layers that limits overfitting n characters."""
    if config.model.num_layers == 1 and config.model.dropout_mask != "window":
        return 0.0
    model = build_model(config.model, vocab_size, config.model._target_)
    weights = sum(p.numel() for p in model.parameters()) / n
    rate = min(0.4, 0.15 * weights) * min(1.0, max(0.0, (config.trainer.max_epochs - 10) / 20))
    return 0.0 if weights < 0.8 or rate < 0.05 else round(rate, 2)


def windows_of(config: Config, train: TextSplit) -> tuple[int, int]:
    """Return how many windows an epoch has, and the steps of one: in a list on average, as its items are padded."""
    made = plan(train, *config.data.window, config.data.offset, 0)
    if not isinstance(train, LineSplit):
        return made.count, config.data.window[0]
    some = range(0, made.count, math.ceil(made.count / 50))
    return made.count, math.ceil(sum(len(made.cut(0, at, slice(None))[0]) for at in some) / len(some))


def seconds_of(config: Config, corpus: Corpus, speed: Speed, width: int, steps: int) -> float:
    """Return the seconds of a whole run: steps, a validation an epoch and at the end, diagnostics, start and end."""
    epochs = math.ceil(steps / speed.steps_an_epoch)
    held_out = corpus.splits["val"].transitions if "val" in corpus.splits else 0
    held_out += config.data.evaluation_streams * (config.data.evaluation_warmup or 0)
    windows = held_out * speed.windows / corpus.splits["train"].transitions
    forward = 0.6 * speed(width) * windows  # a third of a step, at fewer streams
    looks = LOOK * (0.5 + 0.5 * (width / 256) ** 2) if config.callbacks.gradient_flow.enabled else 0.0
    drawings = FIGURES + looks if looks else 0.0
    drawn = 2 + math.floor(math.log(max(epochs, 1), 4))
    training = 1.06 * steps * config.trainer.accumulate_grad_batches * speed(width)
    return START + training + epochs * (forward + looks) + drawn * drawings


class Speed:
    """Seconds of a train step by width: timed at some, on a power law between them; and the windows of an epoch."""

    def __init__(self, config: Config, corpus: Corpus, widths: Sequence[int]) -> None:
        self.config, self.vocab_size = config, len(corpus.vocabulary)
        self.windows, self.length = windows_of(config, corpus.splits["train"])
        self.steps_an_epoch = steps_an_epoch(config, self.windows)
        self.on_gpu = config.trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()
        self.known: dict[int, float] = {}
        for width in widths:
            self.known[width] = self.timed(width, config.trainer.precision)
            if self.known[width] > SLOW:
                break

    def __call__(self, width: int) -> float:
        widths, seconds = np.log(list(self.known)), np.log(list(self.known.values()))
        if len(widths) > 1 and width > max(self.known):  # at least as the products grow
            return float(np.exp(seconds[-1]) * (width / max(self.known)) ** 2)
        return float(np.exp(np.interp(math.log(width), widths, seconds)))

    def bf16_is_faster(self) -> bool:
        """Whether products in bfloat16 make a step at least a fifth faster, which needs instructions for them."""
        if not self.on_gpu and not multiplies_bf16():  # timing it would take as long as the run
            return False
        width = sorted(self.known)[len(self.known) // 2]
        return self.timed(width, "bf16-mixed") < 0.8 * self.known[width]

    def timed(self, width: int, precision: str) -> float:
        """Return the median seconds of a step on random characters."""
        device = torch.device("cuda" if self.on_gpu else "cpu")
        use_threads(threads_for(self.config.trainer.threads, width))
        options = copy.copy(self.config.model)
        options.hidden_size = width
        dtype = torch.float64 if precision == "64-true" else torch.float32
        model = build_model(options, self.vocab_size, options._target_).to(device, dtype)
        optimizer = build_optimizer(model, self.config.optimizer)
        inputs, targets = torch.randint(self.vocab_size, (2, self.length, self.config.data.window[1]), device=device)
        seconds: list[float] = []
        until = time.perf_counter() + min(1.0, duration(self.config.budget or "") / 60)
        for taken in plain_steps(model, optimizer, itertools.repeat((inputs, targets, False)), 1.0, precision):
            seconds.append(taken)
            enough = len(seconds) >= 3 or sum(seconds) >= 3 * SLOW
            if enough and (time.perf_counter() >= until or len(seconds) >= 60):
                break
        return float(np.median(seconds[1:] or seconds))


def plain_steps(model: Any, optimizer: Optimizer, windows: Any, clip: float | None, precision: str) -> Iterator[float]:
    """Yield the seconds of one training step of a plain loop after another; windows: inputs, targets, starts, ..."""
    state, device, started = None, next(model.parameters()).device, time.perf_counter()
    for inputs, targets, starts, *_ in windows:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision.startswith("bf16")):
            logits, state = model(inputs, None if starts else state)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        state = detached(state)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - started
        started = time.perf_counter()
