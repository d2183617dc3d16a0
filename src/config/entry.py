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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from src.config.flags import flags_and_overrides, mistakes_in_flags
from src.config.literals import quote_literals
from src.config.sweeper import RunJobs, Sweep, register
from src.config.words import CONF, first_of_several, mistakes_in, without_null_groups
from src.mistakes import Failure, Mistake

Plain = dict[str, Any]
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
        Mistake: everything that is wrong, at once.
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
        raise Mistake(*wrong_flags, *wrong.values(), *_what_else(config_name, sound, check))

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
        raise Mistake(_first_lines(error)) from error
    finally:
        sys.argv = before
        if not TRACEBACKS:
            os.environ.pop("HYDRA_FULL_ERROR", None)
    if sweep.exit_code:
        sys.exit(sweep.exit_code)
    for config in composed:
        found = check(config)
        if found:
            raise Mistake(*found)
        task(config)


def plain(cfg: DictConfig) -> Plain:
    """Return a composed configuration as plain data, resolved, with its experiment's name and without Hydra's node."""
    ours = cfg.copy()
    with open_dict(ours):
        hydra_node = ours.pop("hydra", None) or HydraConfig.get()
        if "experiment" in ours and ours.experiment is None:
            ours.experiment = hydra_node.runtime.choices.get("experiment")
    config = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


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
    except Mistake as error:
        if TRACEBACKS:
            raise
        if not _another_tells_it():
            for message in error.messages:
                print(message, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except (Failure, OSError) as error:  # a full or read-only disk, a file that vanished: not ours to mend, and no bug
        if isinstance(error, OSError) and _stdout_is_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at the end
            if isinstance(error, BrokenPipeError):  # `--help | head`: the reader has seen enough
                sys.exit(0)
        if TRACEBACKS:
            raise
        print(error if isinstance(error, Failure) else f"{type(error).__name__}: {error}", file=sys.stderr)
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
            return check(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
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
