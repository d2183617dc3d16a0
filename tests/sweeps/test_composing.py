"""Composing once for many jobs gives what Hydra gives for each."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from src.config.compose import to_config
from src.config.hydra_compat import ComposedOnce, Sweep, register
from src.config.overrides import CONF
from src.config.schema import Config


@pytest.fixture
def hydra() -> Iterator[object]:
    ConfigStore.instance().store(name="train_schema", node=Config)
    register(Sweep(to_config, lambda config: [], None))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().hydra


JOBS = [
    ["seed=3"],
    ["model=stacked", "seed=0"],
    ["seed=0", "model=stacked", "model.hidden_size=7"],
    ["data=tiny_shakespeare", "trainer.max_epochs=2", "optimizer=adamw"],
    ["experiment=tutorial", "optimizer.lr=0.5"],
    ["+model.options.width=3", "model=manual"],
    ["data=text", "data.path='a,b=c'"],
    ["model.hidden_size=${seed}", "seed=9"],
]


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_a_job_is_composed_as_hydra_composes_it(hydra, words: list[str]) -> None:  # type: ignore[no-untyped-def]
    master = hydra.compose_config("train", ["seed=0,1"], run_mode=RunMode.MULTIRUN)
    loader = ComposedOnce(hydra.config_loader)
    for others in JOBS:  # whatever was composed before must not show
        loader.load_sweep_config(master, others)
    mine, theirs = loader.load_sweep_config(master, words), hydra.config_loader.load_sweep_config(master, words)
    assert to_config(mine) == to_config(theirs)
    for node in ("overrides.task", "runtime.choices"):
        here, there = (OmegaConf.select(cfg.hydra, node) for cfg in (mine, theirs))
        assert OmegaConf.to_container(here, resolve=False) == OmegaConf.to_container(there, resolve=False)


def test_the_memory_stays_at_home_when_the_loader_travels(hydra) -> None:  # type: ignore[no-untyped-def]
    master = hydra.compose_config("train", ["seed=0,1"], run_mode=RunMode.MULTIRUN)
    loader = ComposedOnce(hydra.config_loader)
    loader.load_sweep_config(master, ["seed=3"])
    assert len(loader.composed) == 1
    assert pickle.loads(pickle.dumps(loader)).composed == {}
