"""From a space to the words of a trial: each parameter is a word `key=value` of src.train, groups included."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping
from typing import Any, Protocol

Space = Mapping[str, Mapping[str, Any]]


class Suggests(Protocol):
    """The part of `optuna.Trial` that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def suggest(trial: Suggests, space: Space, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each parameter whose condition holds, in the order of the space.

    Args:
        trial: Optuna's.
        space: conf/search/NAME.yaml's.
        known: key or group -> value of what the trials have in common, for conditions on what is not in the space.
    """
    chosen: dict[str, Any] = {}
    for key, parameter in space.items():
        if all(chosen.get(other, known.get(other)) in allowed for other, allowed in parameter["when"].items()):
            chosen[key] = _one(trial, key, parameter)
    return chosen


def _one(trial: Suggests, key: str, parameter: Mapping[str, Any]) -> Any:
    kind, low, high, step = (parameter[word] for word in ("kind", "low", "high", "step"))
    if kind == "categorical":
        return trial.suggest_categorical(key, parameter["choices"])
    if kind in ("int", "log_int"):
        return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=kind == "log_int")
    return trial.suggest_float(key, low, high, step=step, log=kind == "log_uniform")


def word(key: str, value: Any) -> str:
    """Return the word that sets a parameter: `optimizer.lr=0.003`, `model.init=orthogonal`, `model.dropout=null`."""
    if value is None or isinstance(value, bool | list):
        return f"{key}={json.dumps(value)}"
    return f"{key}={value!r}" if isinstance(value, int | float) else f"{key}={value}"


def ends_of(space: Space) -> dict[str, list[Any]]:
    """Return the ends of each range, and all choices where there are choices."""
    ends = {}
    for key, parameter in space.items():
        kind = int if "int" in parameter["kind"] else float
        ends[key] = parameter["choices"] or [kind(parameter["low"]), kind(parameter["high"])]
    return ends


def corners(space: Space, known: Mapping[str, Any], most: int = 200) -> list[dict[str, Any]]:
    """Return choices of values to be checked beforehand: every end of a range with every choice of all others.

    Where that would be more than `most`: each end and each choice at least once, and others drawn.

    Args:
        space: conf/search/NAME.yaml's.
        known: see `suggest`.
        most: how many are wanted at most, about.
    """
    ends = ends_of(space)
    sizes = [len(values) for values in ends.values()]
    picks: list[tuple[int, ...]] = [tuple(min(i, size - 1) for size in sizes) for i in range(max(sizes))]
    if math.prod(sizes) <= most:
        picks += itertools.product(*map(range, sizes))
    else:
        draw = random.Random(0)
        picks += [tuple(map(draw.randrange, sizes)) for _ in range(most)]
    found = {}
    for pick in picks:
        chosen = suggest(_Chosen({key: ends[key][i] for key, i in zip(ends, pick, strict=True)}), space, known)
        found[json.dumps(chosen)] = chosen  # without what a condition rules out, many are the same
    return list(found.values())


class _Chosen:
    """Suggests what has been chosen."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return float(self.values[name])

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self.values[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self.values[name]
