"""The module: one detached state per stage, the gradient of a window, and what several windows per step mean."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from src import load
from src.config.schema import Config, to_plain
from src.diagnostics.diagnostic import EvalView
from src.errors import UserError
from src.inference.evaluate import evaluate_run
from src.models.language_model import build_model
from src.training.module import LanguageModule
from src.training.run import build_trainer, fit, prepare, resume
from tests.runs.commands import only_run

COMMAND: dict[str, Any] = {"command": "test", "overrides": []}


@pytest.fixture
def config(composed: Any) -> Config:
    return composed("data.offset=fixed", "optimizer.lr=0.002")


def test_a_run_stores_its_configuration_and_prepare_does_not_change_its_argument(config: Config) -> None:
    config.seed, before = None, replace(config, seed=None)
    folder = fit(config, COMMAND)
    assert config == before
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored == to_plain(config) | {"seed": json.loads((folder / "run.json").read_text())["seed"]}
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["unroll"]["config"] == stored


def test_a_run_stopped_before_its_first_checkpoint_keeps_its_text_and_what_its_budget_chose(config: Config) -> None:
    config.budget, config.chosen = "auto", ["trainer.max_epochs"]
    for stops_at in ("baselines", "open_loggers"):
        assert not Path("runs").exists(), "while n-grams are counted there is no folder"
        with patch(f"src.training.run.{stops_at}", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            fit(config, COMMAND)
    folder = only_run(Path("runs"))
    Path("other.txt").write_text(Path("text.txt").read_text()[::-1])
    with pytest.raises(UserError, match=r"the text has changed since; put the old text back, or start a new run$"):
        resume(folder, {"data.path": "other.txt"})
    resume(folder, {"trainer.max_epochs": 1})
    assert json.loads((folder / "run.json").read_text())["epochs"] == 1


def test_what_windows_drop_and_n_grams_leave_out_is_stored(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.baselines.MOST_TRAIN", 300)
    folder = fit(config, COMMAND)  # 450 characters, 405 and 45 of them
    record = json.loads((folder / "run.json").read_text())
    assert record["windows"] == {
        "train": {"streams": 3, "scored": 402, "dropped": 2},
        "val": {"streams": 1, "scored": 44, "dropped": 0},
    }
    partial = "n-grams counted on the last 300 of 405 characters"
    assert record["baselines_basis"] == partial
    assert f"({partial})" in (folder / "train.log").read_text()
    trained = load(folder)
    evaluated = evaluate_run(trained, "val")  # in one stream, as after its epoch
    assert evaluated["notes"] == [partial]
    assert evaluated["cross_entropy"] == pytest.approx(record["metrics"]["final"]["val/cross_entropy"], abs=1e-6)
    assert evaluate_run(trained, "train")["notes"] == []


@pytest.mark.parametrize(("k", "scale"), [(2, 1.0), (8, 1.0), (8, 2 / 8)])
def test_several_windows_a_step_are_the_mean_of_their_gradients_with_the_state_carried(
    config: Config, k: int, scale: float
) -> None:
    """Also the two windows that are left at the end of an epoch; `scale`: in a run that lacks the key, divided by k."""
    config.trainer = replace(config.trainer, accumulate_grad_batches=k, max_steps=1, gradient_clip_val=None)
    config.trainer = replace(config.trainer, average_last_group=scale == 1.0 or None, limit_train_batches=2)
    config.optimizer = replace(config.optimizer, name="sgd", betas=None, eps=None, lr=1.0)
    prepared = prepare(config)
    model = build_model(config.model, len(prepared.corpus.vocabulary))
    model.load_state_dict(prepared.module.model.state_dict())
    first, second = (window for window, _ in zip(prepared.data.windows(), range(2), strict=False))
    logits, state = model(first.inputs)
    again, _ = model(second.inputs, state.detach())
    losses = [
        torch.nn.functional.cross_entropy(out.flatten(0, 1), window.targets.flatten())
        for out, window in ((logits, first), (again, second))
    ]
    (sum(losses) / 2).backward()  # type: ignore[union-attr]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = {name: p.detach() - scale * p.grad for name, p in trained.items()}  # type: ignore[operator]
    trainer = build_trainer(config, Path("run"), prepared.corpus, prepared.steps_an_epoch).trainer
    Path("run").mkdir()
    trainer.fit(prepared.module, datamodule=prepared.data)
    for name in expected:
        assert torch.allclose(prepared.module.model.get_parameter(name), expected[name], atol=1e-6), name


def test_the_state_goes_on_between_windows_and_no_gradient_goes_with_it(config: Config) -> None:
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
            assert isinstance(pl_module, LanguageModule)
            seen.append(pl_module.states["train"])

    fit(config, COMMAND, also=[Watch()])
    assert len(seen) == prepare(config).steps_an_epoch
    assert all(not state.requires_grad for state in seen)
    assert all(not torch.equal(a, b) for a, b in pairwise(seen))


@pytest.mark.parametrize("name", ["cell.CellRNN", "stacked.StackedRNN", "manual.ManualRNN"])
def test_deterministic_training_works_for_all_three(config: Config, name: str) -> None:
    config.model._target_ = f"src.models.{name}"
    config.trainer.deterministic, config.trainer.max_steps = True, 3
    folders = [fit(config, COMMAND) for _ in range(2)]
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in folders]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    torch.use_deterministic_algorithms(False)


def test_a_readout_that_starts_from_counts_guesses_by_frequency(config: Config) -> None:
    prepared = prepare(replace(config, model=replace(config.model, readout_bias="unigram")))
    counts = np.bincount(prepared.corpus.splits["train"].ids) + 1
    guess = prepared.module.model.readout.bias.softmax(0)  # type: ignore[union-attr, operator]
    assert torch.allclose(guess, torch.from_numpy(counts / counts.sum()).float(), atol=1e-6)
    assert prepared.module.model.readout.weight.std() > 0.1  # type: ignore[union-attr, operator]  # torch's draw


def test_a_recurrence_with_a_rate_of_its_own_stays_while_the_readout_learns(config: Config) -> None:
    weights = []
    for epochs in (1, 3):
        optimizer = replace(config.optimizer, lr=0.1, recurrent_lr=1e-9)
        folder = fit(replace(config, optimizer=optimizer, trainer=replace(config.trainer, max_epochs=epochs)), COMMAND)
        weights.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    for name, weight in weights[0].items():
        assert ((weights[1][name] - weight).abs().max() > 0.01) == ("readout" in name), name


def test_the_average_of_the_weights_is_what_is_validated_and_stored(config: Config) -> None:
    trained: list[Tensor] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx % 2 == 0:  # a step
                trained.append(pl_module.model.readout.weight.detach().clone())
            assert EvalView(trainer, pl_module).model is pl_module.averaged.module  # what the diagnostics look at

    config.optimizer.average, config.trainer.accumulate_grad_batches = 0.8, 2
    folder = fit(config, COMMAND, also=[Watch()])
    expected = trained[0]
    for weight in trained[1:]:
        expected = torch.lerp(expected, weight, 0.2)
    stored = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    torch.testing.assert_close(stored["state_dict"]["model.readout.weight"], expected)
    assert 1e-3 < (stored["state_dict"]["averaged.module.readout.weight"] - expected).abs().max() < 0.1
    known = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["val/cross_entropy"]
    assert evaluate_run(load(folder, at="last"), "val")["cross_entropy"] == pytest.approx(known, abs=1e-5)


def test_lightning_has_the_private_names_that_lightning_compat_uses() -> None:
    trainer = pl.Trainer(logger=False, enable_checkpointing=False)
    epoch = ("_batches_that_stepped", "_skip_next_val", "_should_accumulate", "_num_ready_batches_reached")
    names = {trainer.fit_loop: ("_iteration_based_training",), trainer.fit_loop.epoch_loop: epoch}
    names |= {trainer._signal_connector: ("received_sigterm",)}
    missing = [name for one, needed in names.items() for name in needed if not hasattr(one, name)]
    assert missing == [], "Lightning has changed: see src/training/lightning_compat.py"
