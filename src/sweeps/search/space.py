"""From a space to the words of a trial: each parameter is a word `key=value` of src.train, groups included."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from src.config.checks import errors_in_config
from src.config.compose import to_config
from src.config.hydra_compat import ComposedOnce, Sweep, register
from src.config.overrides import CONF, errors_in_overrides, groups, quote_literals, several
from src.config.run_key import what_matters
from src.config.schema import Config, to_plain
from src.errors import UserError, nearest

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


# ---- The configuration of a trial: src.train's own, from the words that all trials have and the trial's.

# Where a trial lies and what watches it is not what made it good.
NOT_OF_A_BEST_CONFIG = ("runs", "name", "experiment", "sweep", "search", "callbacks", "logger")


def compose(words: Sequence[str]) -> DictConfig:
    """Return what src.train composes from these words, Hydra's node included.

    Raises:
        UserError: it cannot be composed.
    """
    ConfigStore.instance().store(name="train_schema", node=Config)
    register(Sweep(to_config, errors_in_config, None))  # conf/train.yaml names our sweeper; nothing is swept here
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("train", quote_literals(words), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error


def config_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the configuration as plain data."""
    return to_config(compose(words))


def known_of(words: Sequence[str]) -> dict[str, Any]:
    """Return what a condition can be held against: each dotted key of the configuration, and each group's option."""
    cfg = compose(words)
    return dict(flat(to_plain(to_config(cfg)))) | {group: cfg.hydra.runtime.choices.get(group) for group in groups()}


def check_trials(common: Sequence[str], space: Space) -> None:
    """Raise UserError with every error in the words of all trials, a condition, or an end of the space."""
    wrong = dict.fromkeys(_varied_or_many(common, space))
    every = [word(key, value) for key, values in ends_of(space).items() for value in values]
    wrong |= dict.fromkeys(errors_in_overrides([*quote_literals(common), *every], Config).values())
    if not wrong:
        known = known_of(common)
        wrong |= dict.fromkeys(_conditions_on_nothing(space, known))
    if not wrong:
        for config in configs_of(common, corners(space, known)):
            wrong |= dict.fromkeys(errors_in_config(config))
    if wrong:
        raise UserError(*wrong)


def _varied_or_many(common: Sequence[str], space: Space) -> Iterator[str]:
    """Yield what is wrong with words of all trials that the space overrides, or that give several values."""
    for given in quote_literals(common):
        key = given.partition("=")[0].lstrip("+")
        if key in space:
            yield f"{given}: {key} is what this search varies, so the word would do nothing; leave it out"
        elif several(given):
            yield f"{given}: a search gives all its trials one value; several are varied by a space in conf/search/"


def _conditions_on_nothing(space: Space, known: Mapping[str, Any]) -> Iterator[str]:
    for key, parameter in space.items():
        for other in parameter["when"]:
            if other not in space and other not in known:
                yield f"search.space: {key} depends on {other}: there is no such key{nearest(other, [*space, *known])}"


def configs_of(common: Sequence[str], trials: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the configuration of each trial's values, composed as a sweep composes its jobs: fast.

    Raises:
        UserError: one cannot be composed.
    """
    master = compose(common)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = ComposedOnce(GlobalHydra.instance().config_loader())  # type: ignore[arg-type]
        for values in trials:
            words = [word(key, value) for key, value in values.items()]
            try:
                yield to_config(loader.load_sweep_config(master, quote_literals([*common, *words])))
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error


def flat(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def what_is_asked(config: Config) -> dict[str, Any]:
    """Return the settings that trials must share to be compared: dotted key -> value, however they were worded."""
    return {key: value for key, value in flat(what_matters(config)) if key != "trainer.threads"}


def as_experiment(words: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of these words as an experiment: the chosen groups, and what differs from them."""
    cfg = compose(words)
    wanted = [group for group in groups() if group not in NOT_OF_A_BEST_CONFIG]
    chosen = {group: cfg.hydra.runtime.choices.get(group) for group in wanted}
    chosen = {group: option for group, option in chosen.items() if option is not None}
    usual = dict(flat(to_plain(config_of([f"{group}={option}" for group, option in chosen.items()]))))
    experiment: dict[str, Any] = {"defaults": [{f"override /{group}": option} for group, option in chosen.items()]}
    experiment["defaults"].append("_self_")
    for key, value in flat(to_plain(to_config(cfg))):
        if key.split(".")[0] not in NOT_OF_A_BEST_CONFIG and usual.get(key) != value:
            *parents, leaf = key.split(".")
            node = experiment
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
    return experiment


def folder_of(config: Config, study: str) -> Path:
    """Return where a study lies."""
    return Path(config.runs) / "search" / study
