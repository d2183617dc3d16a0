"""A search space: its checks, the values of a trial, and the configuration that src.train makes of them.

Each parameter is a key or a group of src.train; a value becomes the override `key=value`. No torch is imported.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from src.config.checks import errors_in_config
from src.config.compose import compose, to_config
from src.config.hydra_compat import RememberingLoader
from src.config.overrides import CONF, errors_in_overrides, groups, quote_literals
from src.config.run_key import what_matters
from src.config.schema import Config, Parameter, SearchRoot, errors_in_values, flatten, to_plain
from src.errors import UserError, nearest

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

KINDS = ("log_uniform", "uniform", "int", "log_int", "categorical")
# These do not make a trial good, so the best configuration leaves them out.
NOT_IN_BEST = ("runs", "name", "experiment", "sweep", "search", "callbacks", "logger", "chosen")

Space = Mapping[str, Parameter]


def suggest(trial: BaseTrial, space: Space, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value of each parameter whose condition holds; conditions may ask for what `known_of` returns, too."""
    chosen: dict[str, Any] = {}
    for key, one in space.items():
        if not all(chosen.get(other, known.get(other)) in allowed for other, allowed in one.when.items()):
            continue
        if one.kind == "categorical":
            chosen[key] = trial.suggest_categorical(key, one.choices or [])
        elif "int" in one.kind:
            low, high, step = int(one.low or 0), int(one.high or 0), int(one.step or 1)
            chosen[key] = trial.suggest_int(key, low, high, step=step, log=one.kind == "log_int")
        else:
            log = one.kind == "log_uniform"
            chosen[key] = trial.suggest_float(key, one.low or 0.0, one.high or 0.0, step=one.step, log=log)
    return chosen


def override(key: str, value: Any) -> str:
    """Return the override that sets a parameter: `optimizer.lr=0.003`, `model.dropout=null`."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def known_of(words: Sequence[str]) -> dict[str, Any]:
    """Return what a condition can depend on: each key of the configuration, and the option of each group."""
    cfg = compose(words)
    return dict(flatten(to_plain(to_config(cfg)))) | {group: cfg.hydra.runtime.choices.get(group) for group in groups()}


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings that trials must share to be compared: dotted key -> value."""
    return {key: value for key, value in flatten(what_matters(config)) if key != "trainer.threads"}


def as_experiment(words: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of these overrides as an experiment: groups, and what differs from them."""
    cfg = compose(words)
    given = {word.partition("=")[0] for word in words}  # a budget sets what no override and no config file sets
    chosen = {group: cfg.hydra.runtime.choices.get(group) for group in groups().keys() & given - {*NOT_IN_BEST}}
    chosen = {group: option for group, option in chosen.items() if option is not None}
    defaults = dict(flatten(to_plain(to_config(compose(f"{group}={option}" for group, option in chosen.items())))))
    experiment: dict[str, Any] = {"defaults": [{f"override /{group}": option} for group, option in chosen.items()]}
    experiment["defaults"].append("_self_")
    for key, value in flatten(to_plain(to_config(cfg))):
        *parents, leaf = key.split(".")
        if key.split(".")[0] not in NOT_IN_BEST and (key in given or defaults.get(key) != value):
            functools.reduce(lambda node, parent: node.setdefault(parent, {}), parents, experiment)[leaf] = value
    return experiment


def errors_in_search(root: SearchRoot) -> list[str]:
    """Return everything that is wrong with conf/search/NAME.yaml by itself, one text an error."""
    return [*errors_in_values(root, SearchRoot), *_errors_in_space(root.search.space, root.search.study)]


def _errors_in_space(space: Space, study: str | None) -> Iterator[str]:
    if not space:
        yield "search.space is empty: a study needs something to vary"
    if study is not None and ("/" in study or study.startswith(".")):
        yield f"search.study={study}: expected the name of a folder"
    before: list[str] = []
    for key, one in space.items():
        where, low, high = f"search.space: {key}", one.low, one.high
        if one.kind not in KINDS:
            yield f"{where}: kind={one.kind}: expected one of {', '.join(KINDS)}{nearest(str(one.kind), KINDS)}"
        elif one.kind == "categorical":
            if not one.choices:
                yield f"{where}: kind=categorical needs choices"
        elif low is None or high is None or not low < high:
            yield f"{where}: expected low and high, low < high; got {low} and {high}"
        elif (one.kind.startswith("log") and low <= 0) or ("int" in one.kind and (low % 1 or high % 1)):
            yield f"{where}: a logarithmic scale needs low above 0, int whole numbers; got {low} and {high}"
        elif one.choices or (one.step is not None and (one.step <= 0 or one.kind not in ("uniform", "int"))):
            yield f"{where}: step is above 0, for kind=uniform and int; choices are for kind=categorical"
        for other in one.when:
            if other in space and other not in before:
                yield f"{where} depends on {other}: move {other} before it"
        before.append(key)


def check_trials(words: Sequence[str], space: Space) -> None:
    """Check the overrides that all trials share, the conditions, and configurations at the ends of the space."""
    errors: dict[str, None] = {}
    quoted = quote_literals(words)
    ends = [override(key, value) for key, values in ends_of(space).items() for value in values]
    wrong = errors_in_overrides([*quoted, *ends], Config)
    for given in quoted:
        if (key := given.partition("=")[0].lstrip("+")) in space:
            errors[f"{given}: this search varies {key}, so the override would have no effect; leave it out"] = None
        elif given not in wrong and OverridesParser.create().parse_override(given).is_sweep_override():
            errors[f"{given}: a search gives all its trials one value; vary it by a space in conf/search/"] = None
    errors |= dict.fromkeys(wrong.values())
    if errors:
        raise UserError(*errors)
    known, master = known_of(words), compose(words)
    for key, one in space.items():
        for other in set(one.when) - {*space, *known}:
            like = nearest(other, [*space, *known])
            raise UserError(f"search.space: {key} depends on {other}: there is no such key{like}")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = RememberingLoader(GlobalHydra.instance().config_loader())
        for values in corners(space, known):
            varied = [override(key, value) for key, value in values.items()]
            try:
                config = to_config(loader.load_sweep_config(master, quote_literals([*words, *varied])))
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(f"{' '.join(varied)}: {str(error).splitlines()[0]}") from error
            errors |= dict.fromkeys(errors_in_config(config))
    if errors:
        raise UserError(*errors)


def ends_of(space: Space) -> dict[str, list[Any]]:
    """Return both ends of each range, and all choices where there are choices."""
    kinds = {key: int if "int" in one.kind else float for key, one in space.items()}
    return {key: one.choices or [kinds[key](one.low or 0), kinds[key](one.high or 0)] for key, one in space.items()}


def corners(space: Space, known: Mapping[str, Any], most: int = 200) -> list[dict[str, Any]]:
    """Return every combination of the ends of ranges and of choices, or `most` random ones where there are more."""
    from optuna.trial import FixedTrial  # half a second

    ends, draw = ends_of(space), random.Random(0)
    picks: Iterable[Sequence[Any]] = itertools.product(*ends.values())
    if math.prod(map(len, ends.values())) > most:
        picks = [list(map(draw.choice, ends.values())) for _ in range(most)]
    chosen = [suggest(FixedTrial(dict(zip(ends, pick, strict=True))), space, known) for pick in picks]
    # without the parameters whose conditions fail, many are equal
    return list({json.dumps(one): one for one in chosen}.values())
