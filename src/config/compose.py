"""How a command line becomes a checked configuration, and how a mistake in it is told: on stderr, exit code 2.

    words -> literal values quoted -> each word checked -> Hydra composes (and sweeps) -> the whole checked -> the task

Nothing here imports torch, so a mistake is answered in half a second.
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
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

from src.config.checks import GATED, errors_in_config
from src.config.hydra_compat import RunJobs, Sweep, register
from src.config.overrides import (
    CONF,
    first_of_several,
    flags_and_overrides,
    groups,
    mistakes_in,
    mistakes_in_flags,
    overrides_in,
    quote_literals,
    split_word,
    without_null_groups,
)
from src.config.schema import Config, set_value, to_plain
from src.errors import RunFailure, UserError
from src.inference.options import locate, newest_below, run_of

Plain = Any
TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"  # the user's wish; below we set it for ourselves


def compose_and_run(
    config_name: str,
    schema: type,
    task: Callable[[Plain], None],
    words: Iterable[str],
    check: Callable[[Plain], list[str]],
    run_jobs: RunJobs | None = None,
) -> None:
    """Compose `conf/<config_name>.yaml` with the words of a command line, and run the task on the checked result.

    Args:
        config_name: the primary config; its schema is stored under the name that its defaults list gives.
        schema: the dataclass of the whole configuration.
        task: gets the configuration as plain data.
        words: the command line, flags included.
        check: what is wrong with a composed configuration, one text a mistake.
        run_jobs: what becomes of a sweep's jobs; None runs each of them.

    Raises:
        UserError: everything that is wrong, at once.
        SystemExit: a sweep in which something was not done.
    """
    flags, words = flags_and_overrides(words)
    words = quote_literals(words)
    ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)
    register(sweep := Sweep(plain, check, run_jobs))
    wrong = mistakes_in(words, schema, config_folders(flags))
    wrong_flags = mistakes_in_flags(flags)
    if wrong or wrong_flags:
        sound = [word for word in words if word not in wrong]
        raise UserError(*wrong_flags, *wrong.values(), *_what_else(config_name, sound, check))

    composed: list[Plain] = []
    unresolved: list[OmegaConfBaseException] = []

    def run(cfg: DictConfig) -> Any:
        if in_a_sweep():
            return task(plain(cfg))
        try:
            composed.append(plain(cfg))  # a single run starts below, when Hydra has done its part
        except OmegaConfBaseException as error:
            unresolved.append(error)  # raised here, Hydra would tell it as a failure of the job
        return None

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra would print and exit by itself; we tell it better
    before, sys.argv = sys.argv, [sys.argv[0], *flags, *without_null_groups(words)]
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
        found = check(config)
        if found:
            raise UserError(*found)
        task(config)


def plain(cfg: DictConfig) -> Any:
    """Return a composed configuration as dataclasses, resolved, with its experiment's name and without Hydra's node."""
    ours = cfg.copy()
    with open_dict(ours):
        hydra_node = ours.pop("hydra", None) or HydraConfig.get()
        if "experiment" in ours and ours.experiment is None:
            ours.experiment = hydra_node.runtime.choices.get("experiment")
    return OmegaConf.to_object(ours)


def in_a_sweep() -> bool:
    """Whether the task that runs now is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def config_folders(flags: list[str]) -> list[Path]:
    """Return where groups are looked for: conf/, and a folder given with --config-dir."""
    given = [flags[i + 1] for i, flag in enumerate(flags[:-1]) if flag in ("--config-dir", "-cd")]
    given += [flag.partition("=")[2] for flag in flags if flag.startswith("--config-dir=")]
    return [CONF, *map(Path, given)]


def exit_with(run: Callable[[], None]) -> NoReturn:
    """Run an entry and leave with its exit code: 0, or 2 and the mistakes on stderr."""
    # None where the shell has closed it (`>&-`)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a character still gets its text
    try:
        run()
        sys.stdout.flush()  # a full disk is told here, in one line, and not by Python while it ends
    except UserError as error:
        if TRACEBACKS:
            raise
        if not _another_tells_it():
            for message in error.messages:
                print(message, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except (RunFailure, OSError) as error:  # a full or read-only disk, a file that vanished: no bug of ours
        if isinstance(error, OSError) and _stdout_is_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at the end
            if isinstance(error, BrokenPipeError):  # `--help | head`: the reader has seen enough
                sys.exit(0)
        if TRACEBACKS:
            raise
        print(error if isinstance(error, RunFailure) else f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _another_tells_it(seconds: float = 10) -> bool:
    """Whether a process of this machine that got the same words tells what is wrong with them: its first one does.

    torchrun ends all processes as soon as one has failed, the first one perhaps before it has spoken. So the others
    wait to be ended; where that does not come, the first one has found nothing wrong, and this one has to speak.
    """
    first = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0"
    if first or "TORCHELASTIC_RUN_ID" not in os.environ:
        return not first
    time.sleep(seconds)
    return False


def _stdout_is_gone() -> bool:
    """Whether it was standard output that failed: the reader has closed the pipe, or what was written has no place."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    pipe = select.poll()
    pipe.register(1, 0)  # asks for nothing but errors
    return any(events & select.POLLERR for _, events in pipe.poll(0))


def _what_else(config_name: str, words: list[str], check: Callable[[Plain], list[str]]) -> list[str]:
    """Return what is wrong with the configuration that the sound words alone would make."""
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose(config_name, [first_of_several(word) for word in words], return_hydra_config=False)
            return check(OmegaConf.to_object(cfg))
    except (HydraException, OmegaConfBaseException):
        return []  # it does not even compose, and what keeps it from that is already in the list


def _first_lines(error: Exception) -> str:
    """Return what matters of Hydra's words, without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, InterpolationKeyError):
        return f"{error.full_key}: {lines[0]}"
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)'(?: requires|$)", lines[0]):
        key = several[1].partition("=")[0]
        return f"{several[1]}: several values make a sweep: add -m; one value with commas in it: '{key}=\"...\"'"
    return " ".join(line for line in lines[:2] if "append" not in line and "+" not in line) or lines[0]


# ---- The configuration that a run has stored, and the words that change it: `resume=DIR key=value`, `rerun=DIR ...`.


def take(keys: Sequence[str], words: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Split a command line into the literal values of `keys` and all other words.

    Raises:
        UserError: two of the keys, or one of them twice.
    """
    taken: dict[str, str] = {}
    rest = []
    for word in words:
        literal = split_word(word)
        if literal is None or literal[0] not in keys:
            rest.append(word)
        elif taken:
            raise UserError(
                f"{word}: one stored run at a time, and {'='.join(next(iter(taken.items())))} is given already"
            )
        elif not literal[1]:
            raise UserError(f"{word} is empty: expected the folder of a run")
        else:
            taken[literal[0]] = literal[1]
    return taken, rest


def stored_config(folder: Path, words: Sequence[str] = ()) -> Config:
    """Return the configuration of a run, with the words' changes; checked as a whole.

    Raises:
        UserError: the folder is no run, or a word is wrong.
    """
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        below = newest_below(folder) if folder.is_dir() else ""
        raise UserError(f"{folder} is no run: there is no {path.name} in it{below}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not the configuration of a run: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not the configuration of a run")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), _escaped(config))
        whole: Config = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise UserError(f"{path} is not the configuration of a run: {str(error).splitlines()[0]}") from error
    changes, wrong = _changes_and_mistakes(words)
    for key, value in changes.items():
        set_value(whole, key, value)
    wrong += errors_in_config(whole)
    if wrong:
        raise UserError(*wrong)
    return whole


def changes_in(words: Sequence[str]) -> dict[str, Any]:
    """Return {dotted key: value} of the words that change a stored configuration.

    Raises:
        UserError: what is wrong with any of them; a group, whose other keys are stored already.
    """
    changes, wrong = _changes_and_mistakes(words)
    if wrong:
        raise UserError(*wrong)
    return changes


def _changes_and_mistakes(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return {dotted key: value} of the words that are right, and what is wrong with the others."""
    flags = [word for word in words if word.startswith("-")]
    quoted = quote_literals(overrides_in(words))
    mistakes = mistakes_in(quoted, Config)
    wrong = list(mistakes.values())
    wrong += [f"{flag}: a stored run is taken as it is; sweeps and Hydra's flags belong to new runs" for flag in flags]
    changes: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides([word for word in quoted if word not in mistakes]):
        key = override.key_or_group
        if key in groups() or override.is_sweep_override():
            wrong.append(f"{override.input_line}: a stored run is changed key by key ({key}.KEY=value)")
        else:
            changes[key] = override.value()
    typed = OmegaConf.structured(Config)
    for key, value in changes.items():
        OmegaConf.update(typed, key, value)
    whole = OmegaConf.to_container(OmegaConf.create({key: OmegaConf.select(typed, key) for key in changes}))
    assert isinstance(whole, dict)
    return {str(key): value for key, value in whole.items()}, wrong


def _escaped(value: Any) -> Any:
    """Return stored data so that OmegaConf reads no interpolation into it: it was resolved when it was stored."""
    if isinstance(value, dict):
        return {key: _escaped(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escaped(below) for below in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


# ---- `init_from=RUN` on a command line: the words that give the new model the size of the old one, where none do.

NETWORK = ("num_layers", "hidden_size", "nonlinearity", "readout")


def with_sizes_of_source(words: Sequence[str]) -> list[str]:
    """Return the command line with `model=`, the sizes and the way of reading that come with the weights, if any do.

    A word that the user gave stays. Whether it fits the weights is found when they are read.

    Raises:
        UserError: `init_from` names neither a run nor a checkpoint.
    """
    given = [found[1] for word in words if (found := split_word(word)) and found[0] == "init_from"]
    if not given:
        return list(words)
    config = _stored(locate(given[-1]))
    model, data = config["model"], config["data"]
    wanted = {"model": model["name"]}
    wanted |= {f"model.{key}": model[key] for key in NETWORK if model.get(key) is not None}
    if data.get("encoding") == "bytes":
        wanted["data.encoding"] = "bytes"
    if data.get("lowercase"):
        wanted["data.lowercase"] = "true"
    said = {key: value for key, _, value in (word.partition("=") for word in words)}
    if said.get("model") in GATED and said["model"] != model["name"]:
        return list(words)  # which cannot be, and is said when the weights are read
    return [*words, *(f"{key}={value}" for key, value in wanted.items() if key not in said)]


def _stored(checkpoint: Path) -> Mapping[str, Any]:
    """The configuration behind a checkpoint: the file beside it, which needs no torch; else the one inside it."""
    run = run_of(checkpoint)
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) if run else None
    except (OSError, yaml.YAMLError):
        config = None
    if isinstance(config, dict) and {"model", "data"} <= config.keys():
        return config
    from src.process import heavy_imports

    with heavy_imports():
        from src.inference.load import load
    return to_plain(load(checkpoint).config)
