"""The optimizer, and how its learning rate moves with the optimizer steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import Parameter

from src.config.schema import OptimizerConfig, SchedulerConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimizer(parameters: Iterable[Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build one of torch's optimizers with the keys of the configuration that are not None."""
    given = {key: value for key, value in dataclasses.asdict(config).items() if key != "name" and value is not None}
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    trained = [p for p in parameters if p.requires_grad]
    if config.name != "rmsprop" and all(p.device.type == "cpu" for p in trained):
        given["fused"] = True  # one pass over the weights instead of ten: a fourth of the time
    return OPTIMIZERS[config.name](trained, **given)


class Schedule:
    """The factor on the learning rate at an optimizer step.

        warm-up   (s + 1) / warmup_steps             while s < warmup_steps; times one of the following
        none      1
        cosine    f + (1 - f) (1 + cos(pi s / S)) / 2    f = final_fraction, S = total_steps; f after step S
        step      gamma ^ floor(s / step_size)
        plateau   factor ^ (times that the monitored metric did not improve for more than `patience` validations)

    `run_steps`, the optimizer steps of the whole run, are the horizon if `total_steps` is None. `mode` is `min` or
    `max`, which way the monitored metric is better (plateau).
    """

    def __init__(self, config: SchedulerConfig, run_steps: int, mode: str = "min") -> None:
        self.config = config
        self.total_steps = max(1, config.total_steps or run_steps)
        self.sign = 1.0 if mode == "min" else -1.0
        self.best = math.inf
        self.bad_validations = 0
        self.reductions = 0

    def factor(self, step: int) -> float:
        """Return the factor for the update that optimizer step `step` (from 0) makes."""
        config = self.config
        ramp = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.name == "cosine":
            final, done = config.final_fraction, min(1.0, step / self.total_steps)
            return ramp * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)
        if config.name == "step":
            return float(ramp * config.gamma ** (step // config.step_size))
        if config.name == "plateau":
            return float(ramp * config.factor**self.reductions)
        return ramp

    def after_validation(self, metric: float) -> None:
        """Count a validation; plateau lowers the rate after more than `patience` of them without a better metric."""
        if self.config.name != "plateau":
            return
        if self.sign * metric < self.best:
            self.best, self.bad_validations = self.sign * metric, 0
            return
        self.bad_validations += 1
        if self.bad_validations > self.config.patience:
            self.reductions, self.bad_validations = self.reductions + 1, 0

    def state_dict(self) -> dict[str, float]:
        return {key: getattr(self, key) for key in ("total_steps", "best", "bad_validations", "reductions")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it; the horizon too, so that extending a run does not change its schedule."""
        for key, value in state.items():
            setattr(self, key, value)
