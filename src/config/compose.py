"""How a command line becomes a checked configuration, and how an error in it is reported: on stderr, exit code 2.

    arguments -> literal values quoted -> each override checked -> Hydra composes (and sweeps) -> all checked -> task

Nothing here imports torch, so an error is reported in half a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from src.config.checks import GATED, GOES_WITH, errors_if_new, errors_in_config, resolve
from src.config.hydra_compat import RunJobs, Sweep, register
from src.config.overrides import (
    CONF,
    errors_in_flags,
    errors_in_overrides,
    first_of_several,
    flags_and_overrides,
    groups,
    quote_literals,
    split_literal,
    without_null_groups,
)
from src.config.schema import Config, flatten, key_table, set_value, to_plain
from src.errors import RunFailure, UserError
from src.inference.options import locate, newest_below, run_of
from src.process import heavy_imports

TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # the user's choice; below it is set for Hydra
Check = Callable[[Any], list[str]]


def compose_and_run(
    config_name: str,
    schema: type,
    task: Callable[[Any], None],
    arguments: Iterable[str],
    check: Check,
    run_jobs: RunJobs | None = None,
) -> None:
    """Compose `conf/<config_name>.yaml` with a command line, and run the task on the checked result.

    `schema` is the dataclass of the whole configuration, which the task and `check` get; `run_jobs` runs the jobs of a
    sweep (None: each of them).

    Raises:
        UserError: everything that is wrong, at once.
        SystemExit: a sweep in which something was not done.
    """
    flags, overrides = flags_and_overrides(arguments)
    overrides = quote_literals(overrides, schema)
    ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)
    register(sweep := Sweep(to_config, check, run_jobs))
    wrong = errors_in_overrides(overrides, schema, config_folders(flags))
    wrong_flags = errors_in_flags(flags)
    if wrong or wrong_flags:
        right = [override for override in overrides if override not in wrong]
        raise UserError(*wrong_flags, *wrong.values(), *_further_errors(config_name, right, check))

    composed: list[Any] = []
    unresolved: list[OmegaConfBaseException] = []

    def run(cfg: DictConfig) -> Any:
        if in_a_sweep():
            return task(to_config(cfg))
        try:
            composed.append(to_config(cfg))  # a single run starts below, after Hydra
        except OmegaConfBaseException as error:
            unresolved.append(error)  # raised here, Hydra would report it as a failure of the job
        return None

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra would print and exit by itself
    before, sys.argv = sys.argv, [sys.argv[0], *flags, *without_null_groups(overrides)]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run)()
        if unresolved:
            raise unresolved[0]
    except (HydraException, OmegaConfBaseException) as error:
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


def compose(overrides: Iterable[str]) -> DictConfig:
    """Return what src.train composes from these overrides, Hydra's node included.

    Raises:
        UserError: it cannot be composed.
    """
    ConfigStore.instance().store(name="train_schema", node=Config)
    register(Sweep(to_config, errors_in_config, None))  # conf/train.yaml names our sweeper; nothing is swept here
    overrides = quote_literals(overrides)
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("train", overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{' '.join(overrides)}: {_first_lines(error)}") from error


def to_config(cfg: DictConfig) -> Any:
    """Return a composed configuration as dataclasses: resolved, with its experiment's name, without Hydra's node."""
    ours = cfg.copy()
    with open_dict(ours):
        hydra_node = ours.pop("hydra", None) or HydraConfig.get()
        if "experiment" in ours and ours.experiment is None:
            ours.experiment = hydra_node.runtime.choices.get("experiment")
        for key, value in _values_of_own_files(hydra_node).items():
            OmegaConf.update(ours, key, value)
    config = OmegaConf.to_object(ours)
    if isinstance(config, Config):
        if config.trainer.overfit_batches:
            config.data.offset = "fixed"  # nothing can be overfitted in windows that are drawn anew
        resolve(config)
    return config


def _values_of_own_files(hydra_node: Any) -> dict[str, Any]:
    """Return what option files of the user's own set, by dotted key, less the keys that the command sets itself.

    A file in conf/data sets values of other groups that suit its text; those must not replace what a user wrote into
    a file such as `model/leaky.yaml` below --config-dir.
    """
    sources = (source for source in hydra_node.runtime.config_sources if source.schema == "file")
    folders = [Path(source.path) for source in sources if Path(source.path) != CONF]
    set_by_command = {override.partition("=")[0].lstrip("+") for override in hydra_node.overrides.task}
    set_by_command -= hydra_node.runtime.choices.keys()
    values: dict[str, Any] = {}
    for group, option in hydra_node.runtime.choices.items() if folders else ():
        for file in (folder / group / f"{option}.yaml" for folder in folders):
            if not group.startswith("hydra/") and file.is_file():
                text = file.read_text(encoding="utf-8")
                content = {} if "@package" in text.partition("\n")[0] else yaml.safe_load(text) or {}
                values |= {f"{group}.{key}": value for key, value in flatten(content)}
    return {
        key: value
        for key, value in values.items()
        if (key in key_table() or key.startswith("model.options."))
        and not any(key == own or key.startswith(f"{own}.") for own in set_by_command)
    }


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
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose(config_name, [first_of_several(override) for override in overrides])
            return check(OmegaConf.to_object(cfg))
    except (HydraException, OmegaConfBaseException):
        return []  # it does not compose, because of what is in the list already


def _first_lines(error: Exception) -> str:
    """Return the part of Hydra's message that applies here, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, InterpolationKeyError):
        return f"{error.full_key}: {lines[0]}"
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|$)", lines[0]):
        key = several[1].partition("=")[0]
        return f"{several[1]}: several values make a sweep: add -m; one value with commas in it: '{key}=\"...\"'"
    return " ".join(line for line in lines[:2] if "append" not in line and "+" not in line) or lines[0]


def exit_with(run: Callable[[], None]) -> NoReturn:
    """Run an entry and exit with its code: 0, 2 with the user's errors on stderr, 1 for a failure, 130 for Ctrl-C."""
    # None where the shell has closed it (`>&-`)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character still gets the text
    try:
        run()
        sys.stdout.flush()  # so that a full disk is reported here, and not by Python at its exit
    except UserError as error:
        if TRACEBACKS:
            raise
        if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":
            print(*error.messages, sep="\n", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except (RunFailure, OSError) as error:  # OSError: a full or read-only disk, a file that vanished
        try:
            sys.stdout.flush()
        except OSError:  # it was standard output that failed; Python would report it once more at its exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):  # `--help | head`: the reader has closed the pipe
                sys.exit(0)
        if TRACEBACKS:
            raise
        print(error if isinstance(error, RunFailure) else f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


# -- stored runs: resume=, rerun=, init_from= -------------------------------------------------------------------------


def take(keys: Sequence[str], arguments: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Split a command line into the literal values of `keys` and all other arguments.

    Raises:
        UserError: two of the keys, or one of them twice.
    """
    taken: dict[str, str] = {}
    rest = []
    for argument in arguments:
        key, value = split_literal(argument) or ("", "")
        if key not in keys:
            rest.append(argument)
        elif taken:
            first = "=".join(next(iter(taken.items())))
            raise UserError(f"{argument}: one stored run at a time, and {first} is given already")
        elif not value:
            raise UserError(f"{argument} is empty: expected the folder of a run")
        else:
            taken[key] = value
    return taken, rest


def stored_config(folder: Path, arguments: Sequence[str] = ()) -> tuple[Config, dict[str, Any]]:
    """Return the configuration of a run, changed by the overrides and checked as a whole, and {dotted key: new value}.

    Raises:
        UserError: the folder is no run, or an override is wrong; a group, whose other keys are stored already.
    """
    path = folder / "config.yaml"
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        merged = OmegaConf.merge(OmegaConf.structured(Config), _escaped(stored))
        config: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OSError as error:
        below = newest_below(folder) if folder.is_dir() else ""
        raise UserError(f"{folder} is no run: there is no {path.name} in it{below}") from error
    except (ValueError, TypeError, AssertionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not the configuration of a run: {str(error).partition(chr(10))[0]}") from error
    flags, overrides = flags_and_overrides(arguments)
    overrides = quote_literals(overrides)
    accepted, errors = errors_if_new(config), errors_in_overrides(overrides, Config)
    wrong = [*errors.values()]
    wrong += [f"{flag}: a stored run is used as it is; sweeps and Hydra's flags are for new runs" for flag in flags]
    typed, changes = OmegaConf.structured(Config), {}
    for override in OverridesParser.create().parse_overrides([one for one in overrides if one not in errors]):
        key = override.key_or_group
        if key in groups() or override.is_sweep_override():
            wrong.append(f"{override.input_line}: a stored run is changed key by key ({key}.KEY=value)")
        else:
            OmegaConf.update(typed, key, override.value())
            value = OmegaConf.select(typed, key)  # of the key's type
            changes[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            set_value(config, key, changes[key])
    for key in changes.keys() & GOES_WITH.keys():
        if GOES_WITH[key][0] not in changes:
            set_value(config, *GOES_WITH[key])
    resolve(config)
    if wrong := [*wrong, *(error for error in errors_in_config(config) if error not in accepted)]:
        raise UserError(*wrong)
    return config, changes


def _escaped(value: Any) -> Any:
    """Return stored data so that OmegaConf finds no interpolation in it: it was resolved when it was stored."""
    if isinstance(value, dict):
        return {key: _escaped(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escaped(below) for below in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def with_sizes_of_source(arguments: Sequence[str]) -> list[str]:
    """Return the command line with the model and the sizes that come with the weights of `init_from=`.

    An override of the user's stays. Whether it fits the weights is found when they are read.

    Raises:
        UserError: `init_from` names neither a run nor a checkpoint.
    """
    given = [found[1] for one in arguments if (found := split_literal(one)) and found[0] == "init_from"]
    if not given:
        return list(arguments)
    stored = _config_of_checkpoint(locate(given[-1]))
    model, data = stored["model"], stored["data"]
    wanted = {"model": model["name"]}
    network = ("num_layers", "hidden_size", "nonlinearity", "readout")
    wanted |= {f"model.{key}": model[key] for key in network if model.get(key) is not None}
    if data.get("encoding") == "bytes":
        wanted["data.encoding"] = "bytes"
    if data.get("lowercase"):
        wanted["data.lowercase"] = "true"
    own = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    if own.get("model") in GATED and own["model"] != model["name"]:
        return list(arguments)  # impossible, which is reported when the weights are read
    return [*arguments, *(f"{key}={value}" for key, value in wanted.items() if key not in own)]


def _config_of_checkpoint(checkpoint: Path) -> Mapping[str, Any]:
    """Return the stored configuration of a checkpoint: the file beside it, which needs no torch, else the one in it."""
    with contextlib.suppress(OSError, yaml.YAMLError):
        config = yaml.safe_load(((run_of(checkpoint) or checkpoint) / "config.yaml").read_text(encoding="utf-8"))
        if isinstance(config, dict) and {"model", "data"} <= config.keys():
            return config
    with heavy_imports():
        from src.inference.load import load
    return to_plain(load(checkpoint).config)
