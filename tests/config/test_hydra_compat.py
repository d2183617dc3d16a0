"""Hydra's internals are as src/config/hydra_compat.py expects them; the sweeper, the launchers and their settings."""

from __future__ import annotations

import argparse
import inspect
import pickle
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import OmegaConf

from src.config import hydra_compat as ours
from src.config.compose import to_config
from src.config.overrides import CONF
from src.config.schema import Config
from src.errors import UserError

JOBS = [
    ["seed=3"],
    ["seed=0", "model=stacked", "model.hidden_size=7"],
    ["data=tiny_shakespeare", "trainer.max_epochs=2", "optimizer=adamw"],
    ["experiment=tutorial", "optimizer.lr=0.5"],
    ["+model.options.width=3", "model=manual"],
    ["data=text", "data.path='a,b=c'"],
    ["model.hidden_size=${seed}", "seed=9"],
]


def changed(what: str) -> str:
    return (
        f"hydra-core {hydra.__version__} has changed {what} (1.3.8 was the version that src/config/hydra_compat.py was "
        "written for): see the table at the head of that file"
    )


def test_every_private_name_of_hydra_is_as_it_was() -> None:
    loader = ConfigLoaderImpl
    assert hasattr(loader, "_apply_overrides_to_config"), changed("ConfigLoaderImpl._apply_overrides_to_config")
    arguments = list(inspect.signature(loader._apply_overrides_to_config).parameters)
    assert arguments == ["overrides", "cfg"], changed("the arguments of ConfigLoaderImpl._apply_overrides_to_config")
    arguments = list(inspect.signature(loader.load_sweep_config).parameters)
    assert arguments == ["self", "master_config", "sweep_overrides"], changed("ConfigLoaderImpl.load_sweep_config")
    plugins = Plugins.instance()
    assert isinstance(plugins.class_name_to_class, dict), changed("Plugins.class_name_to_class")
    assert isinstance(plugins.plugin_type_to_subclass_list, dict), changed("Plugins.plugin_type_to_subclass_list")
    assert plugins.is_in_toplevel_plugins_module(ours.SWEEPER), changed("the package that it takes plugins from")
    job = JobReturn()
    job.return_value = 3
    assert getattr(job, "_return_value", None) == 3, changed("JobReturn._return_value")


def test_each_help_text_can_be_rendered_when_it_is_added_as_python_3_14_does(monkeypatch: pytest.MonkeyPatch) -> None:
    add = argparse.ArgumentParser.add_argument

    def add_and_render(self: Any, *names: Any, **known: Any) -> argparse.Action:
        action = add(self, *names, **known)
        assert self._get_formatter()._expand_help(action) is not None
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_and_render)
    parser = sys.modules["hydra.main"].get_args_parser()  # type: ignore[attr-defined]
    assert "shell completion" in parser.format_help()


@pytest.fixture
def hydra_here() -> Iterator[Any]:
    ConfigStore.instance().store(name="train_schema", node=Config)
    ours.register(ours.Sweep(to_config, lambda config: [], None))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().hydra


def test_hydra_makes_our_sweeper_and_forgets_it_before_its_plugins_are_sent_to_workers(hydra_here: Any) -> None:
    master = hydra_here.compose_config("train", ["seed=0,1"], run_mode=RunMode.MULTIRUN)
    context = type("Context", (), {"config_loader": hydra_here.config_loader, "callbacks": None})
    plugins = Plugins.instance()
    sweeper = plugins.instantiate_sweeper(hydra_context=context, task_function=lambda cfg: None, config=master)
    assert isinstance(sweeper, ours.CheckedSweeper), changed("how a sweeper is made")
    assert ours.SWEEPER not in plugins.class_name_to_class, changed("Plugins.class_name_to_class")
    assert ours.CheckedSweeper not in plugins.discover(Sweeper), changed("Plugins.plugin_type_to_subclass_list")


def test_a_job_is_composed_as_hydra_composes_it(hydra_here: Any) -> None:
    master = hydra_here.compose_config("train", ["seed=0,1"], run_mode=RunMode.MULTIRUN)
    assert isinstance(hydra_here.config_loader, ConfigLoaderImpl), changed("the class of its loader")
    loader = ours.RememberingLoader(hydra_here.config_loader)
    for overrides in JOBS:  # the later ones with the memory of the earlier ones
        mine = loader.load_sweep_config(master, overrides)
        theirs = hydra_here.config_loader.load_sweep_config(master, overrides)
        assert to_config(mine) == to_config(theirs), changed(f"composing: {overrides}")
        for node in ("overrides.task", "runtime.choices"):
            here, there = (OmegaConf.select(cfg.hydra, node) for cfg in (mine, theirs))
            assert here == there, changed(f"hydra.{node}: {overrides}")
    assert len(loader.composed) > 1
    assert pickle.loads(pickle.dumps(loader)).composed == {}


def test_our_launcher_presets_raise_no_warning(hydra_here: Any) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the extra joblib is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
        hydra_here.compose_config("train", ["hydra/launcher=joblib"], run_mode=RunMode.MULTIRUN)


def launcher(*outcomes: Any) -> ours.Launcher:
    """A launcher whose jobs end with the given values or exceptions."""

    def launch(jobs: Any, task: Any) -> list[JobReturn]:
        ended = []
        for outcome in outcomes:
            job = JobReturn()
            job.status = JobStatus.FAILED if isinstance(outcome, Exception) else JobStatus.COMPLETED
            job.return_value = outcome
            ended.append(job)
        return ended

    return ours.Launcher("basic", {}, launch)


def test_jobs_without_a_record_that_raise_are_named_and_make_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [ours.ComposedJob([f"a={i}"], {}) for i in range(3)]
    assert ours.run_each(jobs, launcher(None, 3, None), lambda cfg: None) == 0
    assert capsys.readouterr().err == ""
    raising = launcher(UserError("no such run"), None, ZeroDivisionError("by zero"))
    assert ours.run_each(jobs, raising, lambda cfg: None) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["failed: a=0: no such run", "failed: a=2: ZeroDivisionError: by zero"]


def test_a_launcher_that_is_not_installed_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.config.hydra_compat.is_installed", lambda module: module == "hydra")
    assert ours.error_in_launcher("basic") is None
    assert str(ours.error_in_launcher("submitit_slurm")).endswith("pip install -e '.[slurm]'")
    assert str(ours.error_in_launcher("joblip")).endswith("did you mean joblib?")
