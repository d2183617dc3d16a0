"""From a space to the words of a trial: each parameter is a word `key=value` of src.train, groups included."""

from __future__ import annotations

import json
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
        known: dotted key -> value of what the trials have in common, for conditions on a key that is not in the space.
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


def corners(space: Space) -> list[dict[str, Any]]:
    """Return choices of values in which every end of a range and every choice comes once, to be checked beforehand."""
    ends = {key: parameter["choices"] or [parameter["low"], parameter["high"]] for key, parameter in space.items()}
    return [suggest(_Corner(ends, i), space, {}) for i in range(max(len(values) for values in ends.values()))]


class _Corner:
    """Suggests the i-th end of every range, the last one again where a range has fewer."""

    def __init__(self, ends: Mapping[str, Any], i: int) -> None:
        self.ends, self.i = ends, i

    def _end(self, name: str) -> Any:
        return self.ends[name][min(self.i, len(self.ends[name]) - 1)]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return float(self._end(name))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self._end(name))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._end(name)
