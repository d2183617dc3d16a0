"""The types of conf/search.yaml and conf/search/: a study, its space, how it samples and prunes; and their checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from src.mistakes import nearest

KINDS = ("log_uniform", "uniform", "int", "log_int", "categorical")
SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "halving", "hyperband", "none")


@dataclass
class Parameter:
    """One axis of the space: `low` to `high` (both included), or `choices`; where `when` holds, and nowhere else."""

    kind: str = MISSING
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: list[Any] | None = None
    when: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class SamplerConfig:
    """Which sampler proposes values."""

    name: str = "tpe"
    seed: int = 0
    startup_trials: int = 10


@dataclass
class PrunerConfig:
    """Which pruner ends trials by their validation curve; `warmup` counts validations."""

    name: str = "median"
    startup_trials: int = 5
    warmup: int = 1


@dataclass
class SearchConfig:
    """A study."""

    study: str | None = None
    words: list[str] = field(default_factory=list)
    trials: int = 20
    minutes: float | None = None
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    pruner: PrunerConfig = field(default_factory=PrunerConfig)
    space: dict[str, Parameter] = field(default_factory=dict)


@dataclass
class SearchRoot:
    """The whole of `python -m src.search`; every other word of its command line is a word of src.train."""

    search: SearchConfig = field(default_factory=SearchConfig)


def mistakes_in_search(config: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong with a composed search by itself, one text a mistake."""
    return list(_mistakes(config["search"]))


def _mistakes(search: Mapping[str, Any]) -> Iterator[str]:
    if not search["space"]:
        yield "search.space is empty: a study needs something to vary"
    for part, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        name = search[part]["name"]
        if name not in allowed:
            yield f"search.{part}.name={name}: expected one of {', '.join(allowed)}{nearest(name, allowed)}"
    if search["trials"] < 1:
        yield f"search.trials={search['trials']}: expected at least 1"
    study = search["study"]
    if study is not None and ("/" in study or study.startswith(".")):
        yield f"search.study={study}: expected the name of a folder"
    before: list[str] = []
    for key, parameter in search["space"].items():
        yield from _mistakes_in_parameter(f"search.space: {key}", parameter)
        for other in parameter["when"]:
            if other in search["space"] and other not in before:
                yield f"search.space: {key} depends on {other}, which must stand before it"
        before.append(key)


def _mistakes_in_parameter(where: str, parameter: Mapping[str, Any]) -> Iterator[str]:
    kind, low, high = parameter["kind"], parameter["low"], parameter["high"]
    if kind not in KINDS:
        yield f"{where}: kind={kind}: expected one of {', '.join(KINDS)}{nearest(str(kind), KINDS)}"
    elif kind == "categorical":
        if not parameter["choices"]:
            yield f"{where}: a categorical needs choices"
    elif low is None or high is None or not low < high:
        yield f"{where}: expected low and high, low < high; got {low} and {high}"
    elif kind.startswith("log") and low <= 0:
        yield f"{where}: a logarithmic scale needs low above 0; got {low}"
    elif "int" in kind and (low != int(low) or high != int(high)):
        yield f"{where}: {kind} needs whole numbers; got {low} and {high}"
