"""Composing many jobs: Hydra's own loader, which keeps what jobs have in common.

A job of a sweep is composed from its words. Only its groups (`model=cell`) need the files of conf/ read and merged,
0.15 s; its values (`seed=3`) are then set on the result, as Hydra does it, 0.01 s. So one composition serves all jobs
of the same groups.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


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
