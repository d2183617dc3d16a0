"""How a command line becomes a checked configuration, and how an error in it is reported: on stderr, exit code 2.

    arguments -> literal values quoted -> each override checked -> Hydra composes (and sweeps) -> all checked -> task

Nothing here imports torch, so an error is reported in about a second: a UserError with all that is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.config import overrides as command_line
from src.config.checks import GATED, GOES_WITH, choose_by_budget, errors_if_new, errors_in_config, resolve
from src.config.help import help_text
from src.config.hydra_compat import CONF, RunJobs, Sweep, register, store_schema
from src.config.schema import MODEL_CLASSES, Config, InferenceConfig, check_class, flatten, set_value
from src.errors import UserError, first_line
from src.files import read_yaml
from src.inference.options import locate, newest_below, run_of, with_named_runs
from src.process import TRACEBACKS, heavy_imports, say, threads_for, use_threads

if TYPE_CHECKING:
    from src.inference.load import TrainedModel

Check = Callable[[Any], list[str]]
COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError, UnicodeError)  # all that composing may raise


def compose_and_run(
    config_name: str,
    schema: type,
    task: Callable[[Any], object],
    arguments: Iterable[str],
    check: Check,
    run_jobs: RunJobs | None = None,
    jobs: list[list[str]] | None = None,
) -> None:
    """Compose `conf/<config_name>.yaml` with a command line, and run the task on the checked result.

    `schema` is the dataclass of the whole configuration, which the task and `check` get; `run_jobs` runs the jobs of a
    sweep (None: each of them); `jobs` are overrides of each, in place of those that the command line makes. SystemExit
    after a sweep in which something was not done.
    """
    flags, overrides = command_line.flags_and_overrides(arguments)
    if {"--help", "-h"}.intersection(flags):
        return say(help_text(config_name, schema))
    store_schema(config_name, schema)
    in_sweep = partial(command_line.in_file, schema=schema, folders=config_folders(flags))
    register(sweep := Sweep(to_config, check, run_jobs, in_sweep if jobs is None else lambda *_: jobs))
    overrides = _checked_overrides(config_name, schema, flags, overrides, check)
    composed: list[Any] = []
    unresolved: list[Exception] = []

    def run(cfg: DictConfig) -> Any:
        if in_a_sweep():
            return task(to_config(cfg))
        try:
            composed.append(to_config(cfg))  # a single run starts below, after Hydra
        except (OmegaConfBaseException, UserError) as error:
            unresolved.append(error)  # raised here, Hydra would report it as a failure of the job
        return None

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra would print and exit by itself
    before, sys.argv = sys.argv, [sys.argv[0], *flags, *command_line.without_null_groups(overrides)]
    try:
        if (single := _single_run(config_name, flags, sys.argv[1:])) is not None:
            composed.append(single)
        else:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run)()
        if unresolved:
            raise unresolved[0]
    except COMPOSING as error:
        raise UserError(_first_lines(error)) from error
    finally:
        sys.argv = before
        if not TRACEBACKS:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    if sweep.exit_code:
        sys.exit(sweep.exit_code)
    for config in composed:
        if errors := check(config):
            raise UserError(*errors)
        task(config)


def _single_run(config_name: str, flags: list[str], overrides: list[str]) -> Any:
    """Return the configuration of a single run, composed once; None for a sweep, a flag, a setting of Hydra's own."""
    if flags or any("hydra" in override for override in overrides):
        return None
    with _temporary_hydra():
        cfg = hydra.compose(config_name, overrides, return_hydra_config=True)
    if cfg.hydra.mode == RunMode.MULTIRUN or cfg.hydra.job.env_set or cfg.hydra.callbacks:
        return None
    known = HydraConfig.instance()
    before, known.cfg = known.cfg, cast(Any, cfg)  # for `${hydra:...}` in a file of the user's
    try:
        return to_config(cfg)
    finally:  # else Lightning would start further processes in Hydra's way
        known.cfg = before


def _checked_overrides(name: str, schema: type, flags: list[str], overrides: list[str], check: Check) -> list[str]:
    """Return the overrides of a command with their literal values quoted, or raise all that is wrong with it."""
    wrong_flags = [*command_line.errors_in_flags(flags), *command_line.errors_in_repeats(overrides)]
    folders = config_folders(flags)[1:]
    wrong_flags += [f"--config-dir {folder}: there is no such folder" for folder in folders if not folder.is_dir()]
    own = (file for folder in folders if folder.resolve() != CONF for file in sorted(folder.glob("*/*.yaml")))
    hidden = "conf/ has an option of this name, which is read instead; rename yours"
    wrong_flags += [f"{file}: {hidden}" for file in own if (CONF / file.parent.name / file.name).is_file()]
    overrides = command_line.quote_literals(overrides, schema, sweep=bool({"-m", "--multirun"}.intersection(flags)))
    wrong = command_line.errors_in_overrides(overrides, schema, config_folders(flags))
    if wrong or wrong_flags:
        further = _further_errors(name, [override for override in overrides if override not in wrong], check)
        # Without the wrong `data=txt` the default text is composed: its errors do not count
        groups = [key for word in wrong if (key := word.lstrip("+").partition("=")[0]) in command_line.groups()]
        others = [error for error in further if not any(re.search(rf"\b{group}[.=]", error) for group in groups)]
        raise UserError(*wrong_flags, *wrong.values(), *others)
    return overrides


def compose(overrides: Iterable[str]) -> DictConfig:
    """Return what src.train composes from these overrides, Hydra's node included."""
    overrides = command_line.quote_literals(command_line.without_null_groups(overrides))
    try:
        return _composed_for_train(overrides)
    except COMPOSING as error:
        raise UserError(f"{' '.join(overrides)}: {_first_lines(error)}") from error


def checked_config(arguments: Iterable[str]) -> Config:
    """Return the checked configuration that `python -m src.train` makes of these arguments; UserError for a sweep, too.

    Without Hydra's main, which would close the log files of the calling program, and keep state between two calls.
    """
    flags, overrides = command_line.flags_and_overrides(arguments)
    folders = config_folders(flags)[1:]
    others = [flag for flag in flags if flag.startswith("-") and not flag.startswith(("--config-dir", "-cd"))]
    if others:
        raise UserError(f"{others[0]}: this trains one run, with no flag but --config-dir; use python -m src.train")
    _register_train()
    overrides = _checked_overrides("train", Config, flags, overrides, errors_in_config)
    own = [command_line.quote(f"file://{folder.resolve()}") for folder in folders]
    try:
        cfg = _composed_for_train(command_line.without_null_groups(overrides), own)
        config: Config = to_config(cfg)
    except COMPOSING as error:
        raise UserError(_first_lines(error)) from error
    if cfg.hydra.mode == RunMode.MULTIRUN or config.sweep.dry_run:
        raise UserError("this trains one run, and the configuration asks for a sweep: use python -m src.train")
    if errors := errors_in_config(config):
        raise UserError(*errors)
    return config


def _register_train() -> None:
    store_schema("train", Config)
    register(Sweep(to_config, errors_in_config, None))  # conf/train.yaml names our sweeper; nothing is swept here


def _composed_for_train(overrides: Sequence[str], folders: Sequence[str] = ()) -> DictConfig:
    """Return the composed configuration; `folders` are quoted addresses of further config folders."""
    _register_train()
    search = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
    with _temporary_hydra():
        return hydra.compose("train", [*overrides, *search], return_hydra_config=True)


@contextlib.contextmanager
def _temporary_hydra() -> Iterator[None]:
    """Inside, Hydra reads conf/. Afterwards its global state is as it was: a notebook may use Hydra for itself."""
    version = VersionBase.instance()
    before = GlobalHydra.instance().hydra, version.version_base
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra, version.version_base = before


def to_config(cfg: DictConfig) -> Any:
    """Return a composed configuration as dataclasses: resolved, with its experiment's name, without Hydra's node."""
    ours = cfg.copy()
    with open_dict(ours):
        hydra_node = ours.pop("hydra", None) or HydraConfig.get()
        if "experiment" in ours and ours.experiment is None:
            ours.experiment = hydra_node.runtime.choices.get("experiment")
    config = OmegaConf.to_object(ours)
    if isinstance(config, Config):
        in_file = hydra_node.sweeper.get("params") or hydra_node.sweeper.get("jobs")
        if in_file and hydra_node.mode != RunMode.MULTIRUN:
            raise UserError("hydra.sweeper has the values of a sweep: add hydra.mode: MULTIRUN to the file, or give -m")
        if config.trainer.overfit_batches:
            config.data.offset = "fixed"  # nothing can be overfitted in windows that are drawn anew
        if config.budget:
            words = dict(word.lstrip("+~").partition("=")[::2] for word in hydra_node.overrides.task)
            folders = [Path(source.path) for source in hydra_node.runtime.config_sources if source.schema == "file"]
            files = [_keys_of_file(folders, *word) for word in words.items() if word[0] in command_line.groups()]
            choose_by_budget(config, set(words), set().union(*files))
        resolve(config)
    return config


def _keys_of_file(folders: Sequence[Path], group: str, option: str) -> set[str]:
    """Return the keys that an option of a group sets, with those of options that it builds on; not our defaults."""
    from src.data.corpus import NAMES  # with numpy, which --help does without

    file = next((file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None)
    suggests = option in NAMES if group == "data" else option == "default"  # our files of data only suggest
    if file is None or (file.parent.parent == CONF and (suggests or option.startswith("_"))):
        return set()
    content: Any = OmegaConf.to_container(OmegaConf.load(file)) or {}
    keys = {key if group in ("data", "experiment", "debug") else f"{group}.{key}" for key, _ in flatten(content)}
    for entry in content.get("defaults", []):
        ((other, choice),) = entry.items() if isinstance(entry, dict) else [(group, entry)]
        keys |= _keys_of_file(folders, other.rpartition("/")[2], str(choice))
    return keys


def in_a_sweep() -> bool:
    """Whether the task that is running is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def config_folders(flags: list[str]) -> list[Path]:
    """Return where groups are looked for: conf/, and a folder given with --config-dir."""
    given = [flags[i + 1] for i, flag in enumerate(flags[:-1]) if flag in ("--config-dir", "-cd")]
    given += [flag.partition("=")[2] for flag in flags if flag.startswith("--config-dir=")]
    return [CONF, *map(Path, given)]


def _further_errors(config_name: str, overrides: list[str], check: Check) -> list[str]:
    """Return what is wrong with the configuration that the right overrides alone would make."""
    try:
        with _temporary_hydra():
            one_each = [command_line.first_of_several(override) for override in overrides]
            words = command_line.without_null_groups(one_each)
            return check(to_config(hydra.compose(config_name, words, return_hydra_config=True)))
    except (*COMPOSING, UserError):
        return []  # it does not compose, because of what is in the list already


def _first_lines(error: Exception) -> str:
    """Return the part of Hydra's message that applies here, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, yaml.YAMLError | UnicodeError):
        return f"a configuration file is no YAML: {' '.join(lines)}"
    if named := re.match(r"In '(experiment/[^']+)'.*Cannot convert 'DictConfig' to string", " ".join(lines)):
        return f"{named[1]}.yaml: its first line must be   # @package _global_"
    if file := re.match(r"In '([^']+)': \w+ raised while", lines[0]):
        return f"{file[1]}.yaml: {first_line(error.__context__)}"
    if isinstance(error, OmegaConfBaseException):
        return first_line(error)
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|$)", lines[0]):
        key, _, values = several[1].partition("=")
        if key == "logger":
            return f"{several[1]}: for all of them at once write '{key}=[{values}]'"
        return f"{several[1]}: several values make a sweep: add -m; one value with commas in it: '{key}=\"...\"'"
    if unknown := re.match(r"Could not override '(.+?)'", lines[0]):
        return f"{unknown[1]}: no chosen option has this key; name one that has it, or add the key: +{unknown[1]}=..."
    return " ".join(line for line in lines[:2] if "append" not in line and "+" not in line) or lines[0]


def take(
    keys: Sequence[str], arguments: Iterable[str], what: str = "stored run", expected: str = "the folder of a run"
) -> tuple[dict[str, str], list[str]]:
    """Split a command line into the literal values of `keys` and the rest; UserError for two of them, or no value."""
    taken: dict[str, str] = {}
    rest = []
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if not equals or key not in keys:
            rest.append(argument)
        elif taken:
            first = "=".join(next(iter(taken.items())))
            raise UserError(f"{argument}: one {what} at a time, and {first} is given already")
        elif not value:
            raise UserError(f"{argument} is empty: expected {expected}")
        else:
            taken[key] = value
    return taken, rest


def take_trust(arguments: Iterable[str]) -> tuple[str | None, list[str]]:
    """Split a command line into the class of the user's own that `trust=` lets stored runs import, and all else."""
    taken, rest = take(("trust",), arguments, "class", "module.Class")
    return taken.get("trust"), rest


def stored_config(folder: Path, command: Sequence[str] = (), trust: str | None = None) -> tuple[Config, dict[str, Any]]:
    """Return the configuration of a run, changed by the overrides and checked as a whole, and {dotted key: new value}.

    UserError: no run; a wrong override, or a group, whose other keys are stored; a class neither ours nor `trust`.
    """
    path = folder / "config.yaml"
    try:
        stored = read_yaml(path)
        merged = OmegaConf.merge(OmegaConf.structured(Config), _escaped(stored))
        config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OSError as error:
        if path.exists():
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder, and no run of that name") from error
        raise UserError(f"{folder} is no run: there is no {path.name} in it{newest_below(folder)}") from error
    except (ValueError, TypeError, AssertionError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not the configuration of a run: {first_line(error)}") from error
    flags, overrides = command_line.flags_and_overrides(command)
    wrong = command_line.errors_in_repeats(overrides)
    overrides = command_line.quote_literals(overrides)
    accepted, errors = errors_if_new(config), command_line.errors_in_overrides(overrides, Config)
    wrong += errors.values()
    wrong += [f"{flag}: a stored run is used as it is; sweeps and Hydra's flags are for new runs" for flag in flags]
    typed: Any = OmegaConf.structured(Config)
    changes: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides([one for one in overrides if one not in errors]):
        key = override.key_or_group
        if key == "logger" and not override.is_sweep_override():
            value: Any = override.value()
            options = value if isinstance(value, list) else [value]
            nodes = [read_yaml(CONF / "logger" / f"{option}.yaml") for option in options]
            config.logger = changes[key] = {name: node for several in nodes for name, node in several.items()}
        elif key in command_line.groups() or override.is_sweep_override():
            wrong.append(f"{override.input_line}: a stored run is changed key by key, one value each; no group")
        else:
            OmegaConf.update(typed, key, override.value())
            value = OmegaConf.select(typed, key)  # of the key's type
            changes[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            set_value(config, key, changes[key])
    for key in changes.keys() & GOES_WITH.keys():
        if GOES_WITH[key][0] not in changes:
            set_value(config, *GOES_WITH[key])
    config.chosen = None  # what a budget has chosen is stored, and stays
    if changes.get("budget") not in (None, stored.get("budget")):
        way = "set the keys themselves (trainer.max_epochs=N, ...), or give it to a new command"
        wrong.append(f"budget={config.budget}: a stored run keeps what it was trained with; {way}")
    resolve(config)
    if wrong := [*wrong, *(error for error in errors_in_config(config) if error not in accepted)]:
        raise UserError(*wrong)
    check_class(config.model._target_, config.model._target_ if "model._target_" in changes else trust, f"{path}: ")
    return config, changes


def _escaped(value: Any) -> Any:
    """Return stored data so that OmegaConf finds no interpolation in it: it was resolved when it was stored."""
    if isinstance(value, dict):
        return {key: _escaped(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escaped(below) for below in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def with_sizes_of_source(arguments: Sequence[str], trust: str | None = None) -> list[str]:
    """Return the command line with the model and the sizes that come with the weights of `init_from=`.

    The user's overrides stay. UserError: no run or checkpoint, or one with a class that the command does not name.
    """
    given = [found[1] for one in arguments if (found := command_line.split_literal(one)) and found[0] == "init_from"]
    if not given or given == ["null"]:
        if trust is not None:
            raise UserError(f"trust={trust}: this command reads no stored run; leave it out")
        return list(arguments)
    source = given[-1]
    if re.fullmatch(r"choice\([^()'\"]+\)", source):  # in a sweep: the sizes of the first
        source = command_line.first_of_several(f"init_from={source}").partition("=")[2]
    stored = _config_of_checkpoint(locate(source))
    model, data = stored["model"], stored["data"]
    own = {key.lstrip("+"): value for key, _, value in (argument.partition("=") for argument in arguments)}
    if model.get("_target_") in MODEL_CLASSES or "model" in own:
        wanted = {"model": model.get("name")}
        network = ("num_layers", "hidden_size", "nonlinearity", "skip", "readout")
        wanted |= {f"model.{key}": model[key] for key in network if model.get(key) is not None}
    else:  # a class of the user's own, without its model file: the run has all of its keys
        check_class(model.get("_target_"), trust or own.get("model._target_"), f"init_from={given[-1]}: ")
        known = [(f"model.{key}", value) for key, value in flatten(model) if value != {}]
        wanted = {key: value if isinstance(value, str) else json.dumps(value) for key, value in known}
        wanted |= {k: command_line.quote(v) for k, v in known if isinstance(v, str) and ".options." in k}
    if data.get("encoding") == "bytes":
        wanted["data.encoding"] = "bytes"
    if data.get("lowercase"):
        wanted["data.lowercase"] = "true"
    if own.get("model") in GATED and own["model"] != model.get("name"):
        return list(arguments)  # impossible, which is reported when the weights are read
    plus = {key: "++" for key in wanted if key.startswith("model.options.")}  # which no file has named yet
    return [*arguments, *(f"{plus.get(key, '')}{key}={value}" for key, value in wanted.items() if key not in own)]


def _config_of_checkpoint(checkpoint: Path) -> Mapping[str, Any]:
    """Return the stored configuration of a checkpoint: the file beside it, which needs no torch, else the one in it."""

    def is_config(value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(value.get(part), dict) for part in ("model", "data"))

    config: Any = None
    with contextlib.suppress(OSError, ValueError):
        config = read_yaml((run_of(checkpoint) or checkpoint) / "config.yaml")
    if not is_config(config):
        with heavy_imports():
            from src.inference.load import read_model
        config = read_model(checkpoint)[1]["unroll"].get("config")
    if not is_config(config):
        raise UserError(f"{checkpoint} has no configuration of a model and its data in it; name another run")
    return config


def run_inference(name: str, schema: type, task: Callable[[Any], object], check: Check, arguments: list[str]) -> None:
    """Compose conf/<name>.yaml with a command line, check it, and run the task; UserError with all that is wrong."""
    decided = [word for word in arguments if word.partition("=")[0] in command_line.groups().keys() - {"model"}]
    if decided:
        other = "another text is scored by python -m src.score file=..."
        raise UserError(*(f"{word}: that was decided when the run was trained; {other}" for word in decided))
    compose_and_run(name, schema, task, with_named_runs(arguments), check)


def load_model(config: InferenceConfig, as_trained: bool = False) -> TrainedModel:
    """Load the model of a checked configuration, in the implementation that `model=` names unless `as_trained`.

    torch is imported here. UserError: no readable checkpoint, or weights that do not fit that implementation.
    """
    with heavy_imports():
        from src.inference.load import load
    trust = config.trust or config.model.get("_target_")  # the class of the user's own that may be imported
    trained = load(config.path or "", at=config.at, precision=config.precision, trust=trust)
    use_threads(threads_for(config.threads, trained.config.model.hidden_size))
    return trained if as_trained or not config.implementation else trained.in_implementation(config.implementation)
