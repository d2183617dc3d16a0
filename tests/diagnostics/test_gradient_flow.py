"""Gradients by lag against the written-out recursion, and the powers of r that a linear network must show."""

import math

import pytest
import torch

from src.config.schema import ModelConfig
from src.diagnostics.gradient_flow import FALLEN, PlainRecurrence, lag_of, sizes, verdict, verdicts, window_deltas
from src.models.convert import convert_
from src.models.gated import GRU
from src.models.language_model import LanguageModel, build_model
from src.models.manual import record_deltas

TARGETS = {"cell": "src.models.cell.CellRNN", "stacked": "src.models.stacked.StackedRNN",
           "manual": "src.models.manual.ManualRNN"}  # fmt: skip


def network(name: str, vocab: int = 7, readout: str = "linear", **words: object) -> LanguageModel:
    given = {"hidden_size": 5, "num_layers": 2, "nonlinearity": "tanh", **words}
    torch.manual_seed(3)
    return build_model(ModelConfig(_target_=TARGETS[name], readout=readout, **given), vocab).double()


def window(time: int = 11, batch: int = 3, vocab: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return tuple(torch.randint(vocab, (time, batch), generator=draw) for _ in range(2))


def state_of(model: LanguageModel, batch: int = 3) -> torch.Tensor:
    layers, hidden = model.recurrence.num_layers, model.recurrence.hidden_size
    return torch.rand(layers, batch, hidden, generator=torch.Generator().manual_seed(2)).double() - 0.5


@pytest.mark.parametrize(
    ("name", "skip"), [*((name, None) for name in TARGETS), *(("manual", skip) for skip in ("input", "output", "both"))]
)
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("last_alone", [True, False])
def test_the_deltas_are_those_that_training_records_from_a_state_that_is_not_zero(name, skip, nonlinearity, last_alone):
    model, ours = (network(one, num_layers=3, skip=skip, nonlinearity=nonlinearity) for one in (name, "manual"))
    convert_(ours, model)
    inputs, targets = window()
    state, first = state_of(model), -1 if last_alone else 0
    with record_deltas(ours.recurrence) as recorded:
        logits = ours(inputs, state)[0][first:].flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, targets[first:].flatten(), reduction="sum").backward()
    for found, delta in zip(window_deltas(model, inputs, targets, state, last_alone), recorded, strict=True):
        assert torch.allclose(found, delta, rtol=0, atol=1e-12)
        assert delta.abs().max() > 0


@pytest.mark.parametrize("r", [0.8, 1.0, 1.1])
def test_in_its_linear_regime_a_network_with_w_r_times_orthogonal_shows_r_to_the_k(r):
    torch.manual_seed(0)
    model = network("manual", hidden_size=16, num_layers=1, init="orthogonal", input_scale=1e-6)
    layer = model.recurrence.layers[0]
    with torch.no_grad():
        layer.weight[:, -16:] *= r
        layer.bias.zero_()  # h stays near zero, where tanh is a straight line
    inputs, targets = window(time=40)
    lags = sizes(window_deltas(model, inputs, targets, None, last_alone=True)).flip(1)[0]
    expected = lags[0] * r ** torch.arange(40)
    assert lags == pytest.approx(expected, rel=0.01)


def test_a_step_without_a_target_sends_no_error_back():
    model = network("manual")
    inputs, targets = window()
    targets[:, 1] = -100
    for delta in window_deltas(model, inputs, targets, None, last_alone=False):
        assert (delta[:, 1] == 0).all()
        assert (delta[:, 0] != 0).any()


def test_a_gated_model_is_refused_verdicts():
    with pytest.raises(TypeError, match="GRU"):
        PlainRecurrence(GRU(7, 5))


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (0.5 ** torch.arange(20.0), ("vanishing", 10)),  # 2^-9 > 0.001 > 2^-10
        (torch.tensor([1.0, 1e-6, 1e-6, 0.5]), None),  # it comes back
        (2.0 ** torch.arange(8.0), ("exploding", 4)),
        (torch.tensor([1.0, math.nan]), ("exploding", 1)),
        (torch.zeros(5), ("vanishing", 0)),
        (torch.tensor([0.0, 1.0, 2.0]), None),  # nothing explodes over zero
    ],
)
def test_a_gradient_vanishes_explodes_or_does_neither(curve, expected):
    assert verdict(curve) == expected
    assert lag_of(0.5 ** torch.arange(20.0), FALLEN) == 7  # 2^-6 > 0.01 > 2^-7


def test_a_verdict_names_the_layer_and_the_lag():
    said = verdicts(torch.stack([torch.ones(8), 2.0 ** torch.arange(8.0)]))
    assert set(said) == {"exploding"}
    assert "in layer 1 |dL_T/dz_(T-k)| is over 10 times that at lag 0 at lag k = 4" in said["exploding"]
