"""A Hydra sweeper that checks every job before the first one starts and gives each its keyed folder.

Expansion, composition and launching are Hydra's own: this stands between its basic sweeper and the chosen launcher.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from src.mistakes import Mistake

Check = Callable[[DictConfig], list[str]]
_checks: list[Check] = []  # Hydra makes the sweeper, so the check cannot come through its constructor


class CheckedSweeper(Sweeper):
    """Every combination of the values that were given, all of them checked before job 0."""

    __module__ = "hydra_plugins.unroll"  # see `register`

    def __init__(self) -> None:
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's hook: make the launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Expand, check all, launch.

        Raises:
            Mistake: what is wrong with any job, each text once.
        """
        assert self.hydra_context is not None and self.config is not None
        overrides = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        jobs = [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
        wrong: dict[str, None] = {}
        for job in jobs:
            cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(job))
            wrong |= dict.fromkeys(message for check in _checks for message in check(cfg))
        if wrong:
            raise Mistake(*wrong)
        return list(self.launcher.launch([list(job) for job in jobs], initial_job_idx=0))


def register(check: Check) -> None:
    """Make `hydra/sweeper: checked` known to Hydra, with the check that its jobs must pass.

    Hydra takes plugins from the package `hydra_plugins` only, and a top level is not ours to add: so this module is
    known there under a second name.
    """
    _checks[:] = [check]
    try:
        package = importlib.import_module("hydra_plugins")
    except ModuleNotFoundError:  # none of Hydra's launchers is installed
        package = sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
        package.__path__ = []
    sys.modules[CheckedSweeper.__module__] = package.unroll = sys.modules[__name__]  # type: ignore[attr-defined]
    Plugins.instance().register(CheckedSweeper)
    target = f"{CheckedSweeper.__module__}.{CheckedSweeper.__qualname__}"
    ConfigStore.instance().store(group="hydra/sweeper", name="checked", node={"_target_": target})
