"""The fast step is the model's own forward, one character at a time: values, states, restarts, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.config.schema import CLASSES, ModelConfig, SamplingConfig
from src.errors import UserError
from src.inference.export import one_step
from src.inference.generate import generate_ids
from src.inference.incremental import ForwardStepper, change_parts, parts_of, stepper
from src.models.language_model import LanguageModel, build_model

KINDS = [(name, f) for name in ("cell", "stacked", "manual") for f in ("tanh", "relu")]
KINDS += [("lstm", None), ("gru", None)]


def build(name: str, nonlinearity: str | None, skip: str | None = None) -> LanguageModel:
    torch.manual_seed(1)
    config = ModelConfig(name, CLASSES[name], 3, 7, nonlinearity=nonlinearity, skip=skip)
    return build_model(config, 5).double().eval()


def zero_state(model: LanguageModel, batch: int):
    with torch.no_grad():
        return change_parts(model(torch.zeros(1, batch, dtype=torch.int64), None)[1], torch.zeros_like)


def random_state(model: LanguageModel, batch: int):
    torch.manual_seed(2)
    return change_parts(zero_state(model, batch), torch.randn_like)


@pytest.mark.parametrize(("name", "nonlinearity"), KINDS)
@pytest.mark.parametrize(("batch", "skip"), [(1, None), (3, "both"), (9, None), (1, "input"), (3, "output")])
def test_the_fast_step_and_the_exported_one_are_the_model_s_own_forward_from_any_state(name, nonlinearity, batch, skip):
    model = build(name, nonlinearity, skip)
    state = random_state(model, batch)
    fast, exported, parts = stepper(model, state), one_step(model), parts_of(state)
    assert not isinstance(fast, ForwardStepper)
    ids = torch.randint(5, (11, batch))
    with torch.no_grad():
        for x_t, expected in zip(ids, model(ids, state)[0], strict=True):
            np.testing.assert_allclose(fast.step(x_t.numpy()), expected.numpy(), rtol=0, atol=1e-12)
            found, *parts = exported(x_t, *parts)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "nonlinearity"), KINDS)
def test_a_stream_that_restarts_goes_on_as_a_new_one_and_leaves_the_others_alone(name, nonlinearity):
    model = build(name, nonlinearity)
    fast, plain = (made(model, random_state(model, 3)) for made in (stepper, ForwardStepper))
    for made in (fast, plain):
        made.step(np.array([0, 1, 2]))
        made.restart(np.array([False, True, False]))
    again = np.array([3, 3, 3])
    logits = fast.step(again)
    np.testing.assert_allclose(logits, plain.step(again), rtol=0, atol=1e-12)
    np.testing.assert_allclose(logits[1], stepper(model, zero_state(model, 1)).step(again[:1])[0], rtol=0, atol=1e-12)


def test_a_network_that_has_diverged_is_refused_once_its_logits_overflow_and_warns_of_nothing():
    model = build("manual", "relu")
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1e30)
    ids = generate_ids(model, np.array([0]), SamplingConfig(), [0])
    next(ids)  # of logits that are finite still
    with pytest.raises(UserError, match="the logits are not finite"):
        list(zip(ids, range(20), strict=False))
