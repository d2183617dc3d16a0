"""The module: one detached state a stage, the gradient of a window, and what several windows a step mean."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import yaml

from src import load
from src.config.checks import errors_in_config
from src.inference.evaluate import evaluate_run
from src.models.language_model import build_model
from src.training.lightning_compat import OF_A_STEP
from src.training.module import LanguageModule
from src.training.run import fit, prepare
from src.training.trainer import build_trainer
from tests.runs.commands import ROOT


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A small run on a text, composed from conf/ and shrunk."""
    import hydra
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from src.config.schema import Config

    monkeypatch.setenv("UNROLL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 20)
    ConfigStore.instance().store(name="train_schema", node=Config)
    words = [
        "hydra/sweeper=basic",
        "data=text",
        f"data.path={text}",
        "model=stacked",
        "model.hidden_size=6",
        "data.seq_len=5",
    ]
    words += ["data.batch_size=3", "callbacks=none", "logger=none", "name=small", "trainer.max_epochs=1"]
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = OmegaConf.to_container(hydra.compose("train", words), resolve=True)
    assert isinstance(composed, dict)
    config = {str(key): value for key, value in composed.items()}
    assert errors_in_config(config) == []
    return config


def test_a_run_is_written_down_as_it_was(config: dict[str, Any]) -> None:
    folder = fit(config, {"command": "test", "overrides": []})
    assert yaml.safe_load((folder / "config.yaml").read_text()) == config
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["unroll"]["config"] == config


def test_an_odd_byte_of_the_command_line_is_written_down(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a", "b"):
        (tmp_path / "texts" / name).write_text("abc" * 100)
    config["data"] |= {"path": str(tmp_path / "texts"), "encoding": "bytes", "separator": "\udcff"}
    folder = fit(config, {"command": "test", "overrides": ["data.separator=\udcff"]})
    record = json.loads((folder / "run.json").read_text())
    assert (record["overrides"], record["vocab_size"]) == (["data.separator=\udcff"], 4)
    assert load(folder).config["data"]["separator"] == "\udcff"


def test_what_the_windows_drop_and_the_n_grams_leave_out_is_written_down(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.baselines.MOST_TRAIN", 700)
    folder = fit(config, {"command": "test", "overrides": []})  # 900 characters, 810 and 90 of them
    record = json.loads((folder / "run.json").read_text())
    assert record["windows"] == {
        "train": {"streams": 3, "scored": 807, "dropped": 2},
        "val": {"streams": 20, "scored": 80, "dropped": 9},
    }
    partial = "n-grams counted on the last 700 of 810 characters"
    assert record["baselines_basis"] == partial
    assert f"({partial})" in (folder / "train.log").read_text()
    trained = load(folder)
    assert evaluate_run(trained, "val")["notes"] == [partial]
    assert evaluate_run(trained, "train")["notes"] == []


def test_every_trainer_word_of_ours_is_lightning_s_or_said_to_be_ours() -> None:
    import dataclasses
    import inspect

    from src.config.schema import TrainerConfig
    from src.training.trainer import OURS

    theirs = set(inspect.signature(pl.Trainer).parameters)
    for field in dataclasses.fields(TrainerConfig):
        assert field.name in theirs or field.name in OURS, field.name
    assert set(OURS) - theirs == {"threads", "profile"}


def test_callbacks_hear_of_a_step_what_they_have_written_and_no_more(config: dict[str, Any]) -> None:
    prepared = prepare(config)
    trainer = build_trainer(config, Path("run"), prepared.corpus, prepared.steps_an_epoch).trainer
    ours = [callback for callback in trainer.callbacks if type(callback).__module__.startswith("src.")]  # type: ignore[attr-defined]
    heard = set()
    for callback in ours:
        for hook in OF_A_STEP:
            written = getattr(type(callback), hook) is not getattr(pl.Callback, hook)
            assert callable(getattr(callback, hook)) == written, (type(callback).__name__, hook)
            heard |= {hook} if written else set()
    assert {"on_train_batch_start", "on_train_batch_end"} <= heard


def test_a_run_of_so_many_steps_ends_with_a_validation(config: dict[str, Any]) -> None:
    config["trainer"] |= {"max_steps": 7, "max_epochs": 5}
    folder = fit(config, {"command": "", "overrides": []})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 7
    assert "val/cross_entropy" in lines[-1]


def test_several_windows_a_step_are_the_mean_of_their_gradients_with_the_state_carried(config: dict[str, Any]) -> None:
    config["trainer"] |= {"accumulate_grad_batches": 2, "max_steps": 1}
    config["optimizer"] |= {"name": "sgd", "betas": None, "eps": None, "lr": 1.0}
    config["trainer"]["gradient_clip_val"] = None
    prepared = prepare(config)
    model = build_model(config["model"], len(prepared.corpus.vocabulary))
    model.load_state_dict(prepared.module.model.state_dict())
    first, second = (window for window, _ in zip(prepared.data.windows(), range(2), strict=False))
    logits, state = model(first.inputs)
    again, _ = model(second.inputs, state.detach())
    losses = [
        torch.nn.functional.cross_entropy(out.flatten(0, 1), window.targets.flatten())
        for out, window in ((logits, first), (again, second))
    ]
    (sum(losses) / 2).backward()  # type: ignore[union-attr]
    expected = {name: p.detach() - p.grad for name, p in model.named_parameters()}  # type: ignore[operator]
    trainer = build_trainer(config, Path("run"), prepared.corpus, prepared.steps_an_epoch).trainer
    trainer.fit(prepared.module, datamodule=prepared.data)
    for name, p in prepared.module.model.named_parameters():
        assert torch.allclose(p, expected[name], atol=1e-6), name


def test_the_state_goes_on_between_windows_and_no_gradient_goes_with_it(config: dict[str, Any]) -> None:
    prepared = prepare(config)
    module: LanguageModule = prepared.module
    trainer = build_trainer(
        config | {"checkpoint": config["checkpoint"] | {"enabled": False}}, Path("run"), prepared.corpus, 1
    )
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            seen.append(module.states["train"])

    trainer.trainer.callbacks.append(Watch())  # type: ignore[attr-defined]
    trainer.trainer.fit(module, datamodule=prepared.data)
    assert len(seen) == prepared.steps_an_epoch
    assert all(not state.requires_grad for state in seen)
    assert all(not torch.equal(a, b) for a, b in pairwise(seen))


@pytest.mark.parametrize("name", ["cell.CellRNN", "stacked.StackedRNN", "manual.ManualRNN"])
def test_deterministic_training_works_for_all_three(config: dict[str, Any], name: str) -> None:
    config["model"]["_target_"] = f"src.models.{name}"
    config["trainer"] |= {"deterministic": True, "max_steps": 3}
    folders = [fit(dict(config), {"command": "test", "overrides": []}) for _ in range(2)]
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in folders]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    torch.use_deterministic_algorithms(False)
