"""The configuration of a trial: src.train's own, from the words that all trials have and the trial's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from src.config.checks import mistakes_in_config
from src.config.entry import plain
from src.config.literals import quote_literals
from src.config.schema import Config
from src.config.sweeper import Sweep, register
from src.config.words import CONF, groups, mistakes_in
from src.mistakes import Mistake
from src.searching.space import Space, corners, word

# Where a trial lies and what watches it is not what made it good.
NOT_OF_A_BEST_CONFIG = ("runs", "name", "experiment", "sweep", "search", "callbacks", "logger")


def compose(words: Sequence[str]) -> DictConfig:
    """Return what src.train composes from these words, Hydra's node included.

    Raises:
        Mistake: it cannot be composed.
    """
    ConfigStore.instance().store(name="train_schema", node=Config)
    register(Sweep(plain, mistakes_in_config, None))  # conf/train.yaml names our sweeper; nothing is swept here
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("train", quote_literals(words), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise Mistake(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error


def config_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the configuration as plain data."""
    return plain(compose(words))


def check_trials(common: Sequence[str], space: Space) -> None:
    """Raise Mistake with everything that is wrong with the words of all trials or with an end of the space."""
    ends = corners(space)
    words = [*quote_literals(common), *(word(key, value) for corner in ends for key, value in corner.items())]
    wrong = dict.fromkeys(mistakes_in(words, Config).values())
    if not wrong:
        for corner in ends:
            config = config_of([*common, *(word(key, value) for key, value in corner.items())])
            wrong |= dict.fromkeys(mistakes_in_config(config))
    if wrong:
        raise Mistake(*wrong)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def as_experiment(words: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of these words as an experiment: the chosen groups, and what differs from them."""
    cfg = compose(words)
    wanted = [group for group in groups() if group not in NOT_OF_A_BEST_CONFIG]
    chosen = {group: cfg.hydra.runtime.choices.get(group) for group in wanted}
    chosen = {group: option for group, option in chosen.items() if option is not None}
    usual = dict(flat(config_of([f"{group}={option}" for group, option in chosen.items()])))
    experiment: dict[str, Any] = {"defaults": [{f"override /{group}": option} for group, option in chosen.items()]}
    experiment["defaults"].append("_self_")
    for key, value in flat(plain(cfg)):
        if key.split(".")[0] not in NOT_OF_A_BEST_CONFIG and usual.get(key) != value:
            *parents, leaf = key.split(".")
            node = experiment
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
    return experiment


def folder_of(config: Mapping[str, Any], study: str) -> Path:
    """Return where a study lies."""
    return Path(config["runs"]) / "search" / study
