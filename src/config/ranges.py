"""The numbers of a configuration, each held to its range; nan lies in none, and inf in those alone that name no end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf, isfinite
from typing import Any

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


def mistakes_in_ranges(config: Mapping[str, Any]) -> Iterator[str]:
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
    least, most = config["trainer"]["min_epochs"], config["trainer"]["max_epochs"]
    if least is not None and least > most:
        yield f"trainer.min_epochs={least}: expected at most trainer.max_epochs={most}"
    if config["seed"] is not None and config["seed"] > MOST_SEED:
        yield f"seed={config['seed']}: expected at most {MOST_SEED}, or null to draw one"
    betas = config["optimizer"]["betas"]
    if betas is not None and not (len(betas) == 2 and all(0 <= beta < 1 for beta in betas)):
        yield f"optimizer.betas={betas}: expected two numbers, 0 <= beta < 1"


def within(value: float, range_: str) -> bool:
    """Whether a number lies in a range written as `0 <= x < 1`."""
    low, high = range_.split(" x ")
    above = value >= 0 if low == "0 <=" else value > 0
    return above and (value < 1 if high == "< 1" else value <= 1)


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value
