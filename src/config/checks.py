"""What a whole configuration must satisfy beyond its types: ranges, choices, and what does not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from src.config.callbacks import mistakes_in_callbacks
from src.config.ranges import mistakes_in_ranges, value_of
from src.data.options import EXTEND
from src.data.options import check as check_data
from src.mistakes import nearest

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


def mistakes_in_config(config: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong with a composed configuration, one text a mistake; no torch, no text opened."""
    found = [*_choices(config), *mistakes_in_ranges(config), *check_data(**config["data"]), *_together(config)]
    return found + list(mistakes_in_callbacks(config["callbacks"]))


def mistakes_in_name(name: str | None) -> Iterator[str]:
    """Yield what is wrong with the name that a run's folder is to lie under."""
    if name is None:
        return
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 255 for part in parts):
        yield f"name={name!r}: expected the name of a folder inside of runs=, as my_run or group/my_run"


def _choices(config: Mapping[str, Any]) -> Iterator[str]:
    for key, allowed in CHOICES.items():
        value = value_of(config, key)
        if value is not None and str(value) not in allowed:
            yield f"{key}={value}: expected one of {', '.join(allowed)}{nearest(str(value), allowed)}"
    yield from mistakes_in_name(config["name"])
    yield from mistakes_in_threads("trainer.threads", config["trainer"]["threads"])
    monitor = config["checkpoint"]["monitor"]
    if monitor not in (*METRICS, "train/loss"):
        there = ", ".join(METRICS[:4])
        yield f"checkpoint.monitor={monitor}: expected one of {there}, train/loss{nearest(monitor, METRICS)}"
    max_time = config["trainer"]["max_time"]
    if max_time is not None and not re.fullmatch(r"(\d+:)?\d{1,2}:\d{2}:\d{2}", str(max_time)):
        yield f"trainer.max_time={max_time}: expected HH:MM:SS or DD:HH:MM:SS"


def mistakes_in_threads(key: str, threads: object) -> Iterator[str]:
    """Yield what is wrong with a number of threads, or `auto`."""
    told = str(threads)
    if told != "auto" and not (told.isdecimal() and len(told) <= 9 and 1 <= int(told) <= MOST_THREADS):
        yield f"{key}={told}: expected auto or a number from 1 to {MOST_THREADS}"


def _together(config: Mapping[str, Any]) -> Iterator[str]:
    model, optimizer, trainer = config["model"], config["optimizer"], config["trainer"]
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
    symbols = config["data"]["symbols"]
    if model["readout"] == "identity" and symbols is not None and len(symbols) != model["hidden_size"]:
        yield (
            f"model.readout=identity: the hidden state is the logits, so model.hidden_size={model['hidden_size']} "
            f"must be the vocabulary's {len(symbols)}; set model.hidden_size={len(symbols)} or model.readout=linear"
        )
    if config["data"]["unknown"] == "extend" and config["init_from"] is None:
        yield EXTEND
    if trainer["precision"] in ("16-mixed", "16-true") and trainer["accelerator"] == "cpu":
        yield f"trainer.precision={trainer['precision']} needs a GPU; on a CPU use bf16-mixed or 32-true"
