"""Everything that reaches into Hydra's internals, written for hydra-core 1.3.8; nothing private of OmegaConf.

what                                             why; without it
ConfigLoaderImpl: repository,                    composing takes Hydra 0.3 s a job (`RememberingLoader`);
  _apply_overrides_to_config                       a sweep of 200 jobs starts a minute later
Plugins: class_name_to_class,                    launchers send Hydra's list of plugins to their workers;
  plugin_type_to_subclass_list                     those cannot import our sweeper
a class of the module `hydra_plugins.unroll`     Hydra takes sweepers from there only
BasicSweeper.split_arguments                     every combination of the values of a command line
JobReturn._return_value                          `return_value` prints before it raises: a failure is reported twice
the warning about `hydra/launcher/NAME`          our presets replace the plugins' configs; a warning at each start
get_args_parser of hydra.main                    Python 3.14 formats a help text when it is added and refuses Hydra's
                                                   object in place of one: every command ends in a traceback
ConfigRepository.load_config                     files are parsed by libyaml; else composing takes a third longer
create_defaults_list,                            files are merged in the order of conf/train.yaml: what a text
  ResultDefault.config_path,                       suggests replaces what the user has chosen (`_rank`)
  Overrides.override_metadata
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError, nearest
from src.process import complain

CONF = Path(__file__).resolve().parents[2] / "conf"

# hydra/launcher -> our extra that installs it, and the module of its plugin
LAUNCHERS = {
    "basic": ("", "hydra"),
    "joblib": ("joblib", "hydra_plugins.hydra_joblib_launcher"),
    "submitit_local": ("slurm", "hydra_plugins.hydra_submitit_launcher"),
    "submitit_slurm": ("slurm", "hydra_plugins.hydra_submitit_launcher"),
    "ray": ("ray", "hydra_plugins.hydra_ray_launcher"),
}

# At import, so that it holds in a launcher's workers too: they unpickle classes of this module before they compose.
warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")

hydra_main: Any = importlib.import_module("hydra.main")  # `hydra.main` itself is the function


def _args_parser(build: Callable[[], argparse.ArgumentParser] = hydra_main.get_args_parser) -> argparse.ArgumentParser:
    """Return Hydra's parser of flags, each help text a str."""
    add = argparse.ArgumentParser.add_argument

    def add_with_text(self: Any, *names: str, **known: Any) -> argparse.Action:
        return add(self, *names, **known | {"help": str(known.get("help", ""))})

    argparse.ArgumentParser.add_argument = add_with_text  # type: ignore[method-assign]
    try:
        return build()
    finally:
        argparse.ArgumentParser.add_argument = add  # type: ignore[method-assign]


hydra_main.get_args_parser = _args_parser


def error_in_launcher(name: str) -> str | None:
    """Return what is wrong with `hydra/launcher=name`: no such launcher, or its extra is not installed."""
    if name not in LAUNCHERS:
        return f"hydra/launcher={name}: expected one of {', '.join(LAUNCHERS)}{nearest(name, LAUNCHERS)}"
    extra, module = LAUNCHERS[name]
    missing = f"hydra/launcher={name} needs the extra {extra}, which is not installed: pip install -e '.[{extra}]'"
    return None if is_installed(module) else missing


def is_installed(module: str) -> bool:
    """Whether a module could be imported; it is not imported."""
    with contextlib.suppress(ModuleNotFoundError):  # hydra_plugins
        return importlib.util.find_spec(module) is not None
    return False


DEFAULTS, BY_EXPERIMENT, OWN_TEXT, NAMED = 0, 2, 4, 5  # files of the other groups, by where they are chosen
PLACES = {"data": 1, "experiment": 3, "debug": 6}  # files that set keys of any group


def _rank(default: Any, metadata: Mapping[str, Any]) -> int:
    """Return a file's rank in the merge: our `default` options, shared files, a text's suggestions are defaults."""
    group, _, option = (default.config_path or "").partition("/")
    ours = (CONF / group / f"{option}.yaml").is_file()
    if group in PLACES:
        own_text = group == "data" and not ours and group in metadata and metadata[group].external_override
        return OWN_TEXT if own_text else PLACES[group]
    shared = (option == "default" or option.startswith("_")) and ours
    if group not in metadata or shared:
        return DEFAULTS
    by = metadata[group]
    if by.external_override:
        return NAMED
    return DEFAULTS if (by.containing_config_path or "").startswith("data/") else BY_EXPERIMENT


def _ordered_defaults_list(create: Callable[..., Any] = config_loader_impl.create_defaults_list, **given: Any) -> Any:
    found = create(**given)
    found.defaults.sort(key=partial(_rank, metadata=found.overrides.override_metadata))
    return found


# At import, as above: workers compose their jobs themselves.
config_loader_impl.create_defaults_list = _ordered_defaults_list  # type: ignore[assignment]


def _load_config(self: Any, config_path: str, load: Callable[..., Any] = ConfigRepository.load_config) -> Any:
    before = yaml.SafeLoader  # which OmegaConf derives its loader from
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", before)  # type: ignore[misc]
    try:
        return load(self, config_path)
    finally:
        yaml.SafeLoader = before  # type: ignore[misc]


ConfigRepository.load_config = _load_config  # type: ignore[method-assign]


class RememberingLoader(ConfigLoaderImpl):
    """Hydra's loader, which composes each choice of config groups once; other overrides are applied to a copy."""

    def __init__(self, loader: Any) -> None:
        self.__dict__.update(loader.__dict__)
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        groups: list[Override] = []
        values: list[Override] = []
        for override in OverridesParser.create(config_loader=self).parse_overrides(sweep_overrides):
            is_group = not isinstance(override.value(), dict) and self.repository.group_exists(override.key_or_group)
            (groups if is_group else values).append(override)
        key = tuple(str(group.input_line) for group in groups)
        if key not in self.composed:
            self.composed[key] = super().load_sweep_config(master_config, list(key))
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
    """One of Hydra's launchers; `launch(overrides of each job, task)` returns when all jobs have ended, or raises."""

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
    # The overrides of each job, several values included, from hydra.sweeper's keys and the command's overrides
    in_file: Callable[[Any, list[str]], list[list[str]]] = lambda settings, arguments: [arguments]
    exit_code: int = 0


class CheckedSweeper(Sweeper):
    """`hydra/sweeper: checked`: every combination of the given values, or those of a file, all checked before job 0."""

    __module__ = "hydra_plugins.unroll"  # Hydra accepts plugins of this package only
    current: Sweep

    def __init__(self, params: Any = None, jobs: Any = None) -> None:
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook. The class leaves Hydra's list of plugins, which is sent to workers that cannot import it."""
        self.context = HydraContext(RememberingLoader(hydra_context.config_loader), hydra_context.callbacks)
        self.master, self.task = config, task_function
        Plugins.instance().class_name_to_class.pop(SWEEPER, None)
        Plugins.instance().plugin_type_to_subclass_list[Sweeper].remove(type(self))

    def sweep(self, arguments: list[str]) -> None:
        """Expand, check all jobs, launch; UserError with what is wrong with any job, each text once."""
        if "TORCHELASTIC_RUN_ID" in os.environ:
            raise UserError("torchrun starts one run: leave -m out, or use hydra/launcher=joblib in place of torchrun")
        loader, jobs = self.context.config_loader, []
        errors: dict[str, None] = {}
        parser = OverridesParser.create(config_loader=loader)
        given = self.current.in_file(OmegaConf.to_container(self.master.hydra.sweeper, resolve=False), arguments)
        for overrides in (job for words in given for job in expand(parser.parse_overrides(words))):
            cfg = loader.load_sweep_config(self.master, overrides)
            if (own := cfg.hydra.sweeper) != self.master.hydra.sweeper and (own.get("params") or own.get("jobs")):
                lost = "this file defines a sweep too, and its jobs would be ignored; give only one such file"
                errors[f"experiment={cfg.hydra.runtime.choices.get('experiment')}: {lost}"] = None
            job = ComposedJob(overrides, self.current.plain(cfg))
            errors |= dict.fromkeys(self.current.check(job.config))
            jobs.append(job)
        if not jobs:
            errors = {f"{' '.join(arguments)}: this makes no job, because no option has such a name": None}
        if errors:
            raise UserError(*errors)
        settings: Any = OmegaConf.to_container(self.master.hydra.launcher, resolve=False)
        launcher = Launcher(self.master.hydra.runtime.choices["hydra/launcher"], settings, self._launch)
        self.current.exit_code = (self.current.run_jobs or partial(run_each, task=self.task))(jobs, launcher)

    def _launch(self, jobs: Sequence[Sequence[str]], task: TaskFunction) -> Sequence[JobReturn]:
        start = Plugins.instance().instantiate_launcher
        launcher = start(hydra_context=self.context, task_function=task, config=self.master)
        return launcher.launch([list(job) for job in jobs], initial_job_idx=0)


SWEEPER = f"{CheckedSweeper.__module__}.{CheckedSweeper.__qualname__}"


@functools.cache
def store_schema(config_name: str, schema: type) -> None:
    """Give Hydra the schema of a command, once: it takes a fifth of the time of composing."""
    ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)


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


def expand(overrides: list[Override]) -> list[list[str]]:
    """Return the overrides of each job: every combination of the values of each key."""
    for override in overrides:
        options: Any = override.value()
        if isinstance(options, Glob):
            options.exclude.append("_*")  # files that other options share
    return BasicSweeper.split_arguments(overrides, None)[0]


def run_each(jobs: list[ComposedJob], launcher: Launcher, task: TaskFunction) -> int:
    """Run jobs that keep no record of their own and report failures at the end; return the exit code."""
    exit_code = 0
    for job, outcome in zip(jobs, launcher.launch([job.overrides for job in jobs], task), strict=True):
        if error := failure_of(outcome):
            exit_code = 1
            message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            complain(f"failed: {' '.join(job.overrides)}: {message}")
    return exit_code


def failure_of(outcome: JobReturn) -> BaseException | None:
    """Return what a job raised, or None."""
    return None if outcome.status == JobStatus.COMPLETED else outcome._return_value
