"""The optimizer, and how its learning rate moves with the optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import Parameter

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimizer(parameters: Iterable[Parameter], words: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Build the optimizer that `words` (the `optimizer` group of conf/) describes; words that are None are left out."""
    given = {word: value for word, value in words.items() if word != "name" and value is not None}
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    trained = [p for p in parameters if p.requires_grad]
    if words["name"] != "rmsprop" and all(p.device.type == "cpu" for p in trained):
        given["fused"] = True  # one pass over the weights for ten: a fourth of the time
    return OPTIMIZERS[words["name"]](trained, **given)


class Schedule:
    """The factor on the learning rate at an optimizer step.

        warm-up   (s + 1) / warmup_steps             while s < warmup_steps; times what follows
        none      1
        cosine    f + (1 - f) (1 + cos(pi s / S)) / 2    f = final_fraction, S = total_steps; past S its last value, f
        step      gamma ^ floor(s / step_size)
        plateau   factor ^ (times that the monitored metric did not improve for more than `patience` validations)

    Args:
        words: the `scheduler` group of conf/.
        run_steps: optimizer steps of the whole run, the horizon of `cosine` where `total_steps` is None.
        mode: `min` or `max`, which way the monitored metric is better (plateau).
    """

    def __init__(self, words: Mapping[str, Any], run_steps: int, mode: str = "min") -> None:
        self.words = words
        self.total_steps = max(1, words.get("total_steps") or run_steps)
        self.sign = 1.0 if mode == "min" else -1.0
        self.best = math.inf
        self.bad_validations = 0
        self.reductions = 0

    def factor(self, step: int) -> float:
        """Return the factor for the update that optimizer step `step` (from 0) makes."""
        warmup = self.words["warmup_steps"]
        ramp = min(1.0, (step + 1) / warmup) if warmup else 1.0
        name = self.words["name"]
        if name == "cosine":
            final, done = self.words["final_fraction"], min(1.0, step / self.total_steps)
            return ramp * (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2)
        if name == "step":
            return ramp * self.words["gamma"] ** (step // self.words["step_size"])
        if name == "plateau":
            return ramp * self.words["factor"] ** self.reductions
        return ramp

    def after_validation(self, metric: float) -> None:
        """Count a validation; plateau lowers the rate when `patience` of them have passed without a better metric."""
        if self.words["name"] != "plateau":
            return
        if self.sign * metric < self.best:
            self.best, self.bad_validations = self.sign * metric, 0
            return
        self.bad_validations += 1
        if self.bad_validations > self.words["patience"]:
            self.reductions, self.bad_validations = self.reductions + 1, 0

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs: the horizon and plateau's counters, as plain numbers."""
        keys = ("total_steps", "best", "bad_validations", "reductions")
        return {key: getattr(self, key) for key in keys}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state back; the horizon too, so that extending a run does not bend its schedule."""
        for key, value in state.items():
            setattr(self, key, value)
