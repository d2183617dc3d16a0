"""The number that is minimised, what is counted beside it, and how the learning rate moves."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from src.config.schema import OptimizerConfig, SchedulerConfig, TrainerConfig
from src.metrics import Tally
from src.models.language_model import NO_TARGET, LanguageModel, sum_in_order, window_loss
from src.training.module import Schedule, build_optimizer


def test_100_characters_at_1_nat_and_3_at_3_are_1_06_nats_a_character() -> None:
    tally = Tally()
    tally.add(nats=100.0, correct=50, characters=100)
    tally.add(nats=9.0, correct=3, characters=3)
    metrics = tally.metrics("val")
    assert metrics["val/cross_entropy"] == pytest.approx(109 / 103)
    assert metrics["val/accuracy"] == pytest.approx(53 / 103)
    assert Tally().metrics("val") == {}


def test_the_sum_over_time_is_added_in_the_order_of_time() -> None:
    torch.manual_seed(0)
    L_t = torch.rand(50) * 10
    in_order = torch.zeros(())
    for term in L_t:
        in_order = in_order + term
    assert torch.equal(sum_in_order(L_t), in_order)
    backwards = sum_in_order(L_t.flip(0))
    assert not torch.equal(backwards, in_order), "these numbers must be able to show an order"


def test_what_is_padding_costs_nothing_and_counts_for_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5, requires_grad=True)
    targets = torch.randint(5, (4, 3))
    targets[2:, 1] = NO_TARGET
    real = targets != NO_TARGET
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten().clamp(min=0), reduction="none")
    half = torch.full((64, 32, 4), 1.0, dtype=torch.bfloat16, requires_grad=True)
    nats = window_loss(half, torch.zeros(64, 32, dtype=torch.long), "mean").nats
    assert float(nats) == pytest.approx(2048 * math.log(4), rel=1e-6)  # in half precision it would be 2,832
    for over_time in ("mean", "sum"):
        loss = window_loss(logits, targets, over_time)
        assert torch.allclose(loss.mean(), each[real.flatten()].mean())
        assert int(loss.characters) == 10
        (grad,) = torch.autograd.grad(loss.minimised, logits)
        assert not grad[2:, 1].any()
        assert grad[:2].abs().sum(-1).all()
    assert torch.allclose((loss.losses.sum(1) / loss.real.sum(1)).sum(), loss.minimised)
    nothing = window_loss(logits, torch.full((4, 3), NO_TARGET), "mean")
    assert nothing.minimised.item() == 0


def test_the_losses_of_each_asked_for_after_autocast_are_what_they_are_under_it() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 3, 5).bfloat16().requires_grad_(), torch.randint(5, (4, 3))
    with torch.autocast("cpu", torch.bfloat16):
        loss = window_loss(logits, targets, "mean")
    assert loss.losses.dtype is loss.nats.dtype is torch.float32
    assert torch.allclose(loss.losses.sum(), loss.nats)


@pytest.mark.parametrize(
    ("config", "factors"),
    [
        (SchedulerConfig("none", warmup_steps=4), {0: 0.25, 3: 1.0, 50: 1.0}),
        (SchedulerConfig("cosine", final_fraction=0.1), {0: 1.0, 50: 0.55, 100: 0.1, 1000: 0.1}),
        (SchedulerConfig("step", step_size=10, gamma=0.5), {9: 1.0, 10: 0.5, 29: 0.25}),
    ],
)
def test_a_schedule_has_the_values_of_its_equation(config: SchedulerConfig, factors: dict[int, float]) -> None:
    schedule = Schedule(config, run_steps=100)
    assert {step: pytest.approx(schedule.factor(step)) for step in factors} == factors


def test_plateau_waits_for_its_patience_and_survives_a_resume() -> None:
    config = SchedulerConfig("plateau", factor=0.5, patience=2)
    schedule, factors = Schedule(config, 100), []
    for metric in [3, 2, 2, 2, 2, 1, 1]:
        resumed = Schedule(config, 999)
        resumed.load_state_dict(schedule.state_dict())
        schedule = resumed
        schedule.after_validation(metric)
        factors.append(schedule.factor(7))
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5]
    assert schedule.total_steps == 100, "an extended run keeps its horizon"


def test_groups_of_weights_have_their_own_weight_decay_and_learning_rate() -> None:
    model = LanguageModel(torch.nn.RNN(3, 4), 3)
    for decay, recurrent_lr in itertools.product(("matrices", None), (None, 0.01)):
        config = OptimizerConfig("sgd", lr=1.0, weight_decay=0.25, decay=decay, recurrent_lr=recurrent_lr)
        optimizer = build_optimizer(model, config)
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        assert optimizer.param_groups[0]["lr"] == 1.0, "the rate that is logged"
        for name, p in model.named_parameters():
            assert groups[id(p)]["weight_decay"] == (0.0 if decay and p.ndim == 1 else 0.25), name
            assert groups[id(p)]["lr"] == (recurrent_lr or 1.0 if name.startswith("recurrence.") else 1.0), name


def test_windows_and_steps_are_counted_as_lightning_counts_them() -> None:
    assert TrainerConfig().windows_an_epoch(10) == 10
    assert [TrainerConfig(limit_train_batches=limit).windows_an_epoch(10) for limit in (0.5, 1)] == [5, 1]
    assert TrainerConfig(overfit_batches=3).windows_an_epoch(10) == 3
    assert TrainerConfig(max_epochs=3).run_steps(10) == 30
    assert TrainerConfig(max_epochs=3, max_steps=7).run_steps(10) == 7
