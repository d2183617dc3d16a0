"""Everything that reaches into Hydra's internals: an upgrade of Hydra has this one file to check.

Written for hydra-core 1.3.8; tests/config/test_hydra_compat.py says what has changed. Nothing private of OmegaConf.

what                                        why                                        without it
ConfigLoaderImpl, its `repository` and      composing takes Hydra 0.3 s a job          checking 200 jobs takes a minute,
  `_apply_overrides_to_config`                (`RememberingLoader`)                      running tiny ones another one
Plugins.class_name_to_class,                launchers send Hydra's list of plugins     a worker of joblib, submitit, ray
  plugin_type_to_subclass_list                to their workers (`CheckedSweeper`)        cannot import our sweeper
a class of the module `hydra_plugins.x`     Hydra takes sweepers from there only       `hydra/sweeper: checked` fails
JobReturn._return_value                     `return_value` prints before it raises     a failed job is reported twice
the warning about `hydra/launcher/NAME`     our presets replace the plugins' configs   a warning at each start
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import itertools
import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.config.schema import flatten
from src.errors import UserError, nearest

# hydra/launcher -> our extra that installs it, and the modules that it needs
LAUNCHERS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "basic": (None, ()),
    "joblib": ("joblib", ("hydra_plugins.hydra_joblib_launcher", "joblib")),
    "submitit_local": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "submitit_slurm": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "ray": ("ray", ("hydra_plugins.hydra_ray_launcher", "ray")),
}
PRESETS = Path(__file__).resolve().parents[2] / "conf" / "hydra" / "launcher"
FREE = tuple(f"hydra.launcher.{key}" for key in ("ray.init", "ray.remote", "additional_parameters"))  # any key below

# At import, so that it holds in a launcher's workers too: they unpickle classes of this module before they compose.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


def error_in_launcher(name: str) -> str | None:
    """Return what is wrong with `hydra/launcher=name`: no such launcher, or its extra is not installed."""
    if name not in LAUNCHERS:
        return f"hydra/launcher={name}: expected one of {', '.join(LAUNCHERS)}{nearest(name, LAUNCHERS)}"
    extra, modules = LAUNCHERS[name]
    if all(is_installed(module) for module in modules):
        return None
    return f"hydra/launcher={name} needs the extra {extra}, which is not installed: pip install -e '.[{extra}]'"


def error_in_launcher_key(key: str, name: str) -> str | None:
    """Return what is wrong with the key `hydra.launcher.KEY` for `hydra/launcher=name`."""
    if name not in LAUNCHERS:
        return None  # reported already
    known = launcher_keys(name)
    if key in known or key.startswith(FREE):
        return None
    if known:
        return f"{key}: hydra/launcher={name} has no such key{nearest(key, known)}"
    owners = [other for other in LAUNCHERS if key in launcher_keys(other)] or list(LAUNCHERS)[1:]
    return f"{key} is a key of hydra/launcher={' or '.join(owners)}; add that too"


def launcher_keys(name: str) -> list[str]:
    """Return the dotted keys of a launcher's preset; none where it has no preset."""
    preset = PRESETS / f"{name}.yaml"
    keys = flatten(yaml.safe_load(preset.read_text("utf-8"))) if preset.exists() else ()
    return [f"hydra.launcher.{key}" for key, _ in keys]


def errors_in_launcher_settings(launcher: Launcher) -> list[str]:
    """Return why a launcher can run nothing here."""
    if launcher.name == "joblib" and launcher.settings.get("n_jobs") == 0:
        return ["hydra.launcher.n_jobs=0: expected a number of workers, or -1 for one per core"]
    if launcher.name == "submitit_slurm" and shutil.which("srun") is None:
        return ["hydra/launcher=submitit_slurm: this machine has no SLURM (no srun); use hydra/launcher=submitit_local"]
    return []


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class RememberingLoader(ConfigLoaderImpl):
    """Hydra's loader, which composes each choice of config groups once; other overrides are applied to a copy.

    Args:
        loader: the loader that Hydra made.
    """

    def __init__(self, loader: Any) -> None:
        self.__dict__.update(loader.__dict__)
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of the job with these overrides."""
        groups: list[str] = []
        values: list[Override] = []
        for override in OverridesParser.create(config_loader=self).parse_overrides(sweep_overrides):
            is_group = not isinstance(override.value(), dict) and self.repository.group_exists(override.key_or_group)
            if is_group:
                groups.append(str(override.input_line))
            else:
                values.append(override)
        if (key := tuple(groups)) not in self.composed:
            self.composed[key] = super().load_sweep_config(master_config, groups)
        cfg = copy.deepcopy(self.composed[key])
        self._apply_overrides_to_config(values, cfg)
        cfg.hydra.overrides.task = list(sweep_overrides)
        return cfg

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the memory: launchers pickle the loader once a job."""
        return self.__dict__ | {"composed": {}}


class ComposedJob(NamedTuple):
    """A job of a sweep: its overrides, and the typed configuration that they make."""

    overrides: list[str]
    config: Any


class Launcher(NamedTuple):
    """One of Hydra's launchers: its name in `hydra/launcher`, its settings, and how it is started.

    `launch(overrides of each job, task)` returns when all jobs have ended; what it raises ends the sweep.
    """

    name: str
    settings: Mapping[str, Any]
    launch: Callable[[Sequence[Sequence[str]], TaskFunction], Sequence[JobReturn]]


RunJobs = Callable[[list[ComposedJob], Launcher], int]  # what an entry does with checked jobs; returns the exit code


@dataclass
class Sweep:
    """What the sweeper needs from us; Hydra constructs the sweeper, so it cannot be an argument of its constructor."""

    plain: Callable[[DictConfig], Any]
    check: Callable[[Any], list[str]]
    run_jobs: RunJobs | None
    exit_code: int = 0


class CheckedSweeper(Sweeper):
    """`hydra/sweeper: checked`: every combination of the given values, all of them checked before job 0."""

    __module__ = "hydra_plugins.unroll"  # Hydra accepts plugins of this package only
    current: Sweep

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook. The class leaves Hydra's list of plugins, which is sent to workers that cannot import it."""
        self.context = HydraContext(RememberingLoader(hydra_context.config_loader), hydra_context.callbacks)
        self.master, self.task = config, task_function
        Plugins.instance().class_name_to_class.pop(SWEEPER, None)
        Plugins.instance().plugin_type_to_subclass_list[Sweeper].remove(type(self))

    def sweep(self, arguments: list[str]) -> None:
        """Expand, check all jobs, launch.

        Raises:
            UserError: what is wrong with any job, each text once.
        """
        if "TORCHELASTIC_RUN_ID" in os.environ:
            raise UserError("torchrun starts one run: leave -m out, or use hydra/launcher=joblib in place of torchrun")
        loader = self.context.config_loader
        jobs: list[ComposedJob] = []
        errors: dict[str, None] = {}
        for overrides in expand(OverridesParser.create(config_loader=loader).parse_overrides(arguments)):
            job = ComposedJob(overrides, self.current.plain(loader.load_sweep_config(self.master, overrides)))
            errors |= dict.fromkeys([*self.current.check(job.config), *_errors_in_processes(job.config)])
            jobs.append(job)
        if not jobs:
            errors = {f"{' '.join(arguments)}: this makes no job, because no option has such a name": None}
        if errors:
            raise UserError(*errors)
        settings: Any = OmegaConf.to_container(self.master.hydra.launcher, resolve=False)
        launcher = Launcher(self.master.hydra.runtime.choices["hydra/launcher"], settings, self._launch)
        run_jobs = self.current.run_jobs
        self.current.exit_code = run_jobs(jobs, launcher) if run_jobs else run_each(jobs, launcher, self.task)

    def _launch(self, jobs: Sequence[Sequence[str]], task: TaskFunction) -> Sequence[JobReturn]:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=task, config=self.master
        )
        return launcher.launch([list(job) for job in jobs], initial_job_idx=0)


SWEEPER = f"{CheckedSweeper.__module__}.{CheckedSweeper.__qualname__}"


def register(sweep: Sweep) -> None:
    """Make `hydra/sweeper: checked` known to Hydra, which finds this module under a second name."""
    CheckedSweeper.current = sweep
    try:
        package = importlib.import_module("hydra_plugins")
    except ModuleNotFoundError:  # none of Hydra's launchers is installed
        package = sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
        package.__path__ = []
    sys.modules[CheckedSweeper.__module__] = package.unroll = sys.modules[__name__]  # type: ignore[attr-defined]
    Plugins.instance().register(CheckedSweeper)
    ConfigStore.instance().store(group="hydra/sweeper", name="checked", node={"_target_": SWEEPER})


def expand(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the overrides of each job: every combination of the values of each key."""
    choices: dict[str, list[str]] = {}
    for override in overrides:
        options: Any = override.value()
        if isinstance(options, Glob):
            options.exclude.append("_*")  # files that other options share
        key = override.get_key_element()
        if override.is_sweep_override():
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    yield from map(list, itertools.product(*choices.values()))


def _errors_in_processes(config: Any) -> Iterator[str]:
    """Yield why a job cannot be part of a sweep: Lightning would start the whole sweep again in each other process."""
    trainer = getattr(config, "trainer", None)
    if trainer is not None and trainer.devices * trainer.num_nodes > 1:
        yield (
            f"trainer.devices={trainer.devices} in a sweep: a run of several processes is started alone, without -m; "
            "jobs of one process each can run at the same time with hydra/launcher=joblib"
        )


def run_each(jobs: list[ComposedJob], launcher: Launcher, task: TaskFunction) -> int:
    """Run jobs that keep no record of their own and report failures at the end; return the exit code."""
    if errors := errors_in_launcher_settings(launcher):
        raise UserError(*errors)
    exit_code = 0
    for job, outcome in zip(jobs, launcher.launch([job.overrides for job in jobs], task), strict=True):
        if error := failure_of(outcome):
            exit_code = 1
            message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            print(f"failed: {' '.join(job.overrides)}: {message}", file=sys.stderr)
    return exit_code


def failure_of(outcome: JobReturn) -> BaseException | None:
    """Return what a job raised, or None."""
    return None if outcome.status == JobStatus.COMPLETED else outcome._return_value
