"""The numbers of a configuration, each held to its range; nan lies in none, and inf in those alone that name no end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import inf, isfinite
from typing import Any

from src.config.schema import Config, mistakes_in_callbacks
from src.data.options import EXTEND
from src.data.options import check as check_data
from src.errors import UserError, nearest

AT_LEAST = {
    "model.num_layers": 1,
    "model.hidden_size": 1,
    "trainer.devices": 1,
    "trainer.num_nodes": 1,
    "trainer.max_epochs": 1,
    "trainer.max_steps": -1,
    "trainer.min_epochs": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.log_every_n_steps": 1,
    "scheduler.warmup_steps": 0,
    "scheduler.total_steps": 1,
    "scheduler.step_size": 1,
    "scheduler.patience": 0,
    "checkpoint.every_n_steps": 1,
    "early_stopping.patience": 1,
    "early_stopping.min_delta": 0,
    "optimizer.weight_decay": 0,
    "seed": 0,
}
MORE_THAN_ZERO = (
    "optimizer.lr",
    "optimizer.eps",
    "trainer.gradient_clip_val",
    "model.input_scale",
    "model.interlayer_scale",
    "checkpoint.every_n_minutes",
)
FRACTIONS = {
    "model.dropout": "0 <= x < 1",
    "optimizer.momentum": "0 <= x < 1",
    "optimizer.alpha": "0 <= x < 1",
    "scheduler.final_fraction": "0 <= x <= 1",
    "scheduler.gamma": "0 < x <= 1",
    "scheduler.factor": "0 < x <= 1",
}
SHARES = ("trainer.val_check_interval", "trainer.limit_train_batches", "trainer.limit_val_batches")
MOST_SEED = 2**64 - 1  # torch's generators take 64 bits


def mistakes_in_ranges(config: Config) -> Iterator[str]:
    """Yield every number that is out of its range, one text a mistake."""
    for key, least in AT_LEAST.items():
        value = value_of(config, key)
        if value is not None and not least <= value < inf:
            yield f"{key}={value}: expected at least {least}"
    for key in MORE_THAN_ZERO:
        value = value_of(config, key)
        if value is not None and not 0 < value < inf:
            yield f"{key}={value}: expected a number above 0"
    for key, range_ in FRACTIONS.items():
        value = value_of(config, key)
        if value is not None and not within(value, range_):
            yield f"{key}={value}: expected {range_}"
    for key in SHARES:
        value = value_of(config, key)
        if not (isfinite(value) and (0 < value <= 1 or (value > 1 and value == int(value)))):
            yield f"{key}={value}: expected a share, 0 < x <= 1, or a whole number of windows"
    again = value_of(config, "trainer.overfit_batches")
    if not (isfinite(again) and again >= 0 and (again <= 1 or again == int(again))):
        yield f"trainer.overfit_batches={again}: expected 0 (off), a share up to 1, or a whole number of windows"
    least, most = config.trainer.min_epochs, config.trainer.max_epochs
    if least is not None and least > most:
        yield f"trainer.min_epochs={least}: expected at most trainer.max_epochs={most}"
    if config.seed is not None and config.seed > MOST_SEED:
        yield f"seed={config['seed']}: expected at most {MOST_SEED}, or null to draw one"
    betas = config.optimizer.betas
    if betas is not None and not (len(betas) == 2 and all(0 <= beta < 1 for beta in betas)):
        yield f"optimizer.betas={betas}: expected two numbers, 0 <= beta < 1"


def within(value: float, range_: str) -> bool:
    """Whether a number lies in a range written as `0 <= x < 1`."""
    low, high = range_.split(" x ")
    above = value >= 0 if low == "0 <=" else value > 0
    return above and (value < 1 if high == "< 1" else value <= 1)


def value_of(config: Config, key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


# ---- How long an epoch and a run are, under the limits of the `trainer` group; known before torch is imported.


def windows_an_epoch(trainer: Mapping[str, Any], windows: int) -> int:
    """Return how many windows an epoch has under Lightning's limits: a whole number counts, a fraction is a share."""
    for limit in (trainer["limit_train_batches"], trainer["overfit_batches"] or 1.0):
        share = int(limit) if limit > 1 or isinstance(limit, int) else int(windows * limit)
        windows = max(1, min(windows, share))
    return windows


def run_steps(trainer: Mapping[str, Any], steps_an_epoch: int) -> int:
    """Return how many optimizer steps the run will make."""
    steps = int(trainer["max_epochs"]) * steps_an_epoch
    return steps if trainer["max_steps"] < 0 else min(steps, trainer["max_steps"])


def check_validations(trainer: Mapping[str, Any], windows: int) -> None:
    """Raise UserError where a validation is to come after more windows than an epoch has: it would never come."""
    every = trainer["val_check_interval"]
    if every > windows and every > 1:
        raise UserError(
            f"trainer.val_check_interval={every:g}: an epoch has {windows} windows; expected at most as many, or a "
            "share of them, 0 < x <= 1"
        )


# ---- What a whole configuration must satisfy beyond its types: ranges, choices, and what does not go together.

CHOICES = {
    "model.nonlinearity": ("tanh", "relu"),
    "model.init": ("torch", "orthogonal", "identity"),
    "model.readout": ("linear", "identity"),
    "loss.over_time": ("sum", "mean"),
    "optimizer.name": ("adam", "adamw", "sgd", "rmsprop"),
    "scheduler.name": ("none", "cosine", "step", "plateau"),
    "logger.name": ("tensorboard", "csv", "none"),
    "checkpoint.mode": ("min", "max"),
    "trainer.accelerator": ("cpu", "gpu", "cuda", "mps", "auto"),
    "trainer.precision": ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "32", "64"),
    "trainer.gradient_clip_algorithm": ("norm", "value"),
    "trainer.strategy": ("auto", "ddp"),
}
METRICS = tuple(
    f"{stage}/{name}"
    for stage in ("val", "train")
    for name in ("cross_entropy", "bits_per_character", "perplexity", "accuracy")
)
MOST_THREADS = 1024  # more than machines have; torch takes any number and dies of it
GATED = ("lstm", "gru")
# Words of the optimizer group that each optimizer has, beside lr and weight_decay.
OPTIMIZER_WORDS = {
    "adam": ("betas", "eps"),
    "adamw": ("betas", "eps"),
    "sgd": ("momentum", "nesterov"),
    "rmsprop": ("alpha", "eps", "momentum"),
}


def mistakes_in_config(config: Config) -> list[str]:
    """Return everything that is wrong with a composed configuration, one text a mistake; no torch, no text opened."""
    found = [*_choices(config), *mistakes_in_ranges(config), *check_data(**config.data), *_together(config)]
    return found + list(mistakes_in_callbacks(config.callbacks))


def mistakes_in_name(name: str | None) -> Iterator[str]:
    """Yield what is wrong with the name that a run's folder is to lie under."""
    if name is None:
        return
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 255 for part in parts):
        yield f"name={name!r}: expected the name of a folder inside of runs=, as my_run or group/my_run"


def _choices(config: Config) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        value = value_of(config, key)
        if value is not None and str(value) not in allowed:
            yield f"{key}={value}: expected one of {', '.join(allowed)}{nearest(str(value), allowed)}"
    yield from mistakes_in_name(config.name)
    yield from mistakes_in_threads("trainer.threads", config.trainer.threads)
    monitor = config.checkpoint.monitor
    if monitor not in (*METRICS, "train/loss"):
        there = ", ".join(METRICS[:4])
        yield f"checkpoint.monitor={monitor}: expected one of {there}, train/loss{nearest(monitor, METRICS)}"
    max_time = config.trainer.max_time
    if max_time is not None and not re.fullmatch(r"(\d+:)?\d{1,2}:\d{2}:\d{2}", str(max_time)):
        yield f"trainer.max_time={max_time}: expected HH:MM:SS or DD:HH:MM:SS"


def mistakes_in_threads(key: str, threads: object) -> Iterator[str]:
    """Yield what is wrong with a number of threads, or `auto`."""
    told = str(threads)
    if told != "auto" and not (told.isdecimal() and len(told) <= 9 and 1 <= int(told) <= MOST_THREADS):
        yield f"{key}={told}: expected auto or a number from 1 to {MOST_THREADS}"


def _together(config: Config) -> Iterator[str]:
    model, optimizer, trainer = config.model, config.optimizer, config.trainer
    if model["name"] in GATED:
        for word, why in (
            ("nonlinearity", "its gates are sigmoid and tanh"),
            ("single_bias", "its gates need both biases"),
        ):
            if model[word]:
                yield f"model.{word}={model[word]} means nothing for model={model['name']}: {why}; leave it out"
    for word in ("betas", "eps", "momentum", "nesterov", "alpha"):
        if optimizer[word] is not None and word not in OPTIMIZER_WORDS.get(optimizer["name"], (word,)):
            has = ", ".join(("lr", "weight_decay", *OPTIMIZER_WORDS[optimizer["name"]]))
            yield f"optimizer.{word} means nothing for optimizer={optimizer['name']}, which has {has}"
    if optimizer["nesterov"] and not optimizer["momentum"]:
        yield "optimizer.nesterov=true needs optimizer.momentum above 0"
    if model["dropout"] > 0 and model["num_layers"] == 1:
        yield f"model.dropout={model['dropout']} acts between layers, and there is one layer; use 2 or dropout 0"
    symbols = config.data.symbols
    if model["readout"] == "identity" and symbols is not None and len(symbols) != model["hidden_size"]:
        yield (
            f"model.readout=identity: the hidden state is the logits, so model.hidden_size={model['hidden_size']} "
            f"must be the vocabulary's {len(symbols)}; set model.hidden_size={len(symbols)} or model.readout=linear"
        )
    if config.data.unknown == "extend" and config.init_from is None:
        yield EXTEND
    if trainer["precision"] in ("16-mixed", "16-true") and trainer["accelerator"] == "cpu":
        yield f"trainer.precision={trainer['precision']} needs a GPU; on a CPU use bf16-mixed or 32-true"
