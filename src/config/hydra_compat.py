"""Which engines run the jobs of a sweep, and which extra each needs."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.config.schema import Config
from src.errors import UserError, nearest

# hydra/launcher -> the extra of ours that brings it, and the modules that it consists of
LAUNCHERS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "basic": (None, ()),
    "joblib": ("joblib", ("hydra_plugins.hydra_joblib_launcher", "joblib")),
    "submitit_local": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "submitit_slurm": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "ray": ("ray", ("hydra_plugins.hydra_ray_launcher", "ray")),
}

PRESETS = Path(__file__).resolve().parents[2] / "conf" / "hydra" / "launcher"
# What lies below these is the engine's own.
FREE = ("hydra.launcher.ray.init", "hydra.launcher.ray.remote", "hydra.launcher.additional_parameters")


def mistake_in_launcher(name: str) -> str | None:
    """Return what is wrong with `hydra/launcher=name`: there is none of that name, or its extra is not installed."""
    if name not in LAUNCHERS:
        return f"hydra/launcher={name}: expected one of {', '.join(LAUNCHERS)}{nearest(name, LAUNCHERS)}"
    extra, modules = LAUNCHERS[name]
    if all(is_there(module) for module in modules):
        return None
    return f"hydra/launcher={name} needs the extra {extra}, which is not installed: pip install -e '.[{extra}]'"


def mistake_in_launcher_word(key: str, name: str) -> str | None:
    """Return what is wrong with the key `hydra.launcher.WORD` where jobs are run by `hydra/launcher=name`."""
    if name not in LAUNCHERS:
        return None  # which is told already
    known = words_of(name)
    if key in known or any(key.startswith(f"{free}.") for free in FREE):
        return None
    if known:
        return f"{key}: hydra/launcher={name} has no such word{nearest(key, known)}"
    has = [other for other in LAUNCHERS if key in words_of(other)]
    return f"{key} is a word of hydra/launcher={' or '.join(has or list(LAUNCHERS)[1:])}; give that too"


def words_of(name: str) -> list[str]:
    """Return the words of an engine, dotted, which its preset has all of; none where it has no preset."""
    if not (preset := PRESETS / f"{name}.yaml").exists():
        return []
    return list(_below("hydra.launcher", yaml.safe_load(preset.read_text(encoding="utf-8"))))


def _below(prefix: str, node: dict[str, Any]) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}.{key}"
        if isinstance(value, dict):
            yield from _below(f"{prefix}.{key}", value)


def mistakes_in_engine(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return what keeps an engine from running anything here: no workers, or no scheduler on this machine."""
    if name == "joblib" and settings.get("n_jobs") == 0:
        return ["hydra.launcher.n_jobs=0: expected a number of workers, or -1 for one a core"]
    if name == "submitit_slurm" and shutil.which("srun") is None:
        return [
            "hydra/launcher=submitit_slurm: there is no SLURM on this machine (no srun); start it on a cluster's login "
            "node, or try the same way here: hydra/launcher=submitit_local"
        ]
    return []


def is_there(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


# ---- Composing many jobs: Hydra's own loader, which keeps what jobs have in common.


def presets_shadow_plugins() -> None:
    """Keep Hydra silent about conf/hydra/launcher/: each preset stands before a plugin's of the same name, on purpose.

    Hydra 1.3 holds such a file to the plugin's own types, which is welcome, and calls that deprecated at each start.
    """
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")


class ComposedOnce(ConfigLoaderImpl):
    """Hydra's loader of configurations, with a memory.

    Args:
        loader: the loader that Hydra made.
    """

    def __init__(self, loader: ConfigLoaderImpl) -> None:
        self.__dict__.update(loader.__dict__)
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process."""
        self.__dict__.update(state)
        presets_shadow_plugins()

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Return the configuration of the job with these words."""
        words = OverridesParser.create(config_loader=self).parse_overrides(sweep_overrides)
        groups = tuple(str(word.input_line) for word in words if self._is_of_a_group(word))
        if groups not in self.composed:
            self.composed[groups] = super().load_sweep_config(master_config, list(groups))
        cfg = copy.deepcopy(self.composed[groups])
        self._apply_overrides_to_config([word for word in words if not self._is_of_a_group(word)], cfg)
        cfg.hydra.overrides.task = [word.input_line for word in words]
        return cfg

    def _is_of_a_group(self, word: Override) -> bool:
        return not isinstance(word.value(), dict) and bool(self.repository.group_exists(word.key_or_group))

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without the memory."""
        return self.__dict__ | {"composed": {}}


# ---- A Hydra sweeper that checks every job before the first one starts, and leaves the rest to whoever knows ...

Plain = Any


class Composed(NamedTuple):
    """A job of a sweep: its words, and the configuration that they make."""

    words: list[str]
    config: Plain


class Engine(NamedTuple):
    """A launcher of Hydra's: its name in `hydra/launcher`, its words, and how it is started.

    `launch(words of each job, task)` returns when all jobs have ended; what it raises ends the sweep.
    """

    name: str
    settings: Plain
    launch: Callable[[Sequence[Sequence[str]], TaskFunction], Sequence[JobReturn]]


class RunJobs(Protocol):
    """What an entry makes of a sweep's jobs, all of them checked; returns the exit code."""

    def __call__(self, jobs: list[Composed], engine: Engine) -> int: ...


@dataclass
class Sweep:
    """What the sweeper must know; Hydra makes it, so this cannot come through its constructor."""

    plain: Callable[[DictConfig], Plain]
    check: Callable[[Plain], list[str]]
    run_jobs: RunJobs | None
    exit_code: int = 0


_sweeps: list[Sweep] = []


class CheckedSweeper(Sweeper):
    """Every combination of the values that were given, all of them checked before job 0."""

    __module__ = "hydra_plugins.unroll"  # see `register`

    def __init__(self) -> None:
        self.context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.task: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook."""
        loader = ComposedOnce(hydra_context.config_loader)  # type: ignore[arg-type]  # Hydra has no other loader
        self.context = HydraContext(config_loader=loader, callbacks=hydra_context.callbacks)
        self.config, self.task = config, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Expand, check all, launch.

        Raises:
            UserError: what is wrong with any job, each text once.
        """
        if "TORCHELASTIC_RUN_ID" in os.environ:
            raise UserError(
                "torchrun starts one run; leave -m out, or leave torchrun out and use hydra/launcher=joblib"
            )
        assert self.context is not None and self.config is not None and self.task is not None
        sweep, loader = _sweeps[0], self.context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
        for override in overrides:
            options: Any = override.value()  # Hydra's own types forget this one
            if isinstance(options, Glob):
                options.exclude.append("_*")  # a base of other options, not one itself
        jobs: list[Composed] = []
        wrong: dict[str, None] = {}
        for words in (list(job) for batch in BasicSweeper.split_arguments(overrides, None) for job in batch):
            job = Composed(words, sweep.plain(loader.load_sweep_config(self.config, words)))
            wrong |= dict.fromkeys([*sweep.check(job.config), *_alone_only(job.config)])
            jobs.append(job)
        if not jobs:
            wrong = {f"{' '.join(arguments)}: that makes no job, for no option has such a name": None}
        if wrong:
            raise UserError(*wrong)
        _forget(type(self))
        engine = Engine(
            self.config.hydra.runtime.choices["hydra/launcher"],
            OmegaConf.to_container(self.config.hydra.launcher, resolve=False),  # type: ignore[arg-type]
            self._launch,
        )
        sweep.exit_code = sweep.run_jobs(jobs, engine) if sweep.run_jobs else run_each(jobs, engine, self.task)

    def _launch(self, jobs: Sequence[Sequence[str]], task: TaskFunction) -> Sequence[JobReturn]:
        assert self.context is not None and self.config is not None
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=task, config=self.config
        )
        return launcher.launch([list(job) for job in jobs], initial_job_idx=0)


def _alone_only(config: Config) -> Iterator[str]:
    """Yield what a job of a sweep cannot do: Lightning would start the whole sweep again in each other process."""
    trainer = config.get("trainer", {})
    if trainer.get("devices", 1) * trainer.get("num_nodes", 1) > 1:
        yield (
            f"trainer.devices={trainer['devices']} in a sweep: a job of several processes is started alone, "
            "without -m; one process a job can run side by side with hydra/launcher=joblib"
        )


def run_each(jobs: list[Composed], engine: Engine, task: TaskFunction) -> int:
    """Run jobs that keep no record of their own; what went wrong is said at the end."""
    if wrong := mistakes_in_engine(engine.name, engine.settings):
        raise UserError(*wrong)
    failed = 0
    for job, outcome in zip(jobs, engine.launch([job.words for job in jobs], task), strict=True):
        if outcome.status != JobStatus.COMPLETED:
            failed += 1
            error = outcome._return_value
            told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            print(f"failed: {' '.join(job.words)}: {told}", file=sys.stderr)
    return 1 if failed else 0


def register(sweep: Sweep) -> None:
    """Make `hydra/sweeper: checked` known to Hydra.

    Hydra takes plugins from the package `hydra_plugins` only, and a top level is not ours to add: so this module is
    known there under a second name.
    """
    _sweeps[:] = [sweep]
    presets_shadow_plugins()
    try:
        package = importlib.import_module("hydra_plugins")
    except ModuleNotFoundError:  # none of Hydra's launchers is installed
        package = sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
        package.__path__ = []
    sys.modules[CheckedSweeper.__module__] = package.unroll = sys.modules[__name__]  # type: ignore[attr-defined]
    Plugins.instance().register(CheckedSweeper)
    target = f"{CheckedSweeper.__module__}.{CheckedSweeper.__qualname__}"
    ConfigStore.instance().store(group="hydra/sweeper", name="checked", node={"_target_": target})


def _forget(sweeper: type[Sweeper]) -> None:
    """Take the sweeper out of Hydra's list of plugins, now that it is made.

    Launchers send that list to their workers, where our second name in `hydra_plugins` is not known.
    """
    plugins = Plugins.instance()
    plugins.class_name_to_class.pop(f"{sweeper.__module__}.{sweeper.__qualname__}", None)
    for classes in plugins.plugin_type_to_subclass_list.values():
        if sweeper in classes:
            classes.remove(sweeper)
