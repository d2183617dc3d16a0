"""Gradients by lag against the written-out recursion, and the powers of r that a linear network must show."""

import copy
import math

import pytest
import torch

from src.config.schema import ModelConfig
from src.diagnostics.gradient_flow import PlainRecurrence, sizes, verdict, verdicts, window_deltas
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


def by_hand(model, inputs, targets, state, last_alone):
    """delta_t^l = f'(z_t^l) (W^lT delta_{t+1}^l + U^{l+1}T delta_t^{l+1}); at the top V^T (yhat_t - y_t) for U."""
    recurrence = PlainRecurrence(model.recurrence)
    _, h = recurrence.run(inputs, state)
    error = torch.softmax(model.readout(h[-1]), -1).detach() - torch.nn.functional.one_hot(targets, 7)
    if last_alone:
        error[:-1] = 0
    from_above = error @ model.readout.weight.detach() if hasattr(model.readout, "weight") else error
    found = []
    for (U, W, _), h_layer in zip(reversed(recurrence.layers), reversed(h), strict=True):
        slope = 1 - h_layer**2 if recurrence.f is torch.tanh else (h_layer > 0).double()
        delta = torch.zeros_like(h_layer)
        for t in reversed(range(len(inputs))):
            later = delta[t + 1] @ W if t + 1 < len(inputs) else 0
            delta[t] = slope[t] * (from_above[t] + later)
        found.insert(0, delta)
        from_above = delta @ U
    return found


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("last_alone", [True, False])
def test_the_deltas_are_those_of_the_recursion_from_a_state_that_is_not_zero(name, nonlinearity, last_alone):
    model = network(name, nonlinearity=nonlinearity)
    inputs, targets = window()
    state = state_of(model)
    found = window_deltas(model, inputs, targets, state, last_alone)
    truths = by_hand(model, inputs, targets, state, last_alone)
    for layer, (mine, truth) in enumerate(zip(found, truths, strict=True)):
        torch.testing.assert_close(mine, truth, rtol=1e-10, atol=1e-12, msg=(f"layer {layer}: " + "{}").format)


@pytest.mark.parametrize("skip", ["input", "output", "both"])
def test_the_deltas_of_skip_connections_are_those_that_training_records(skip):
    model, (inputs, targets) = network("manual", num_layers=3, skip=skip), window()
    state = state_of(model)
    with record_deltas(model.recurrence) as recorded:
        logits = model(inputs, state)[0]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
    for found, delta in zip(window_deltas(model, inputs, targets, state, False), recorded, strict=True):
        assert torch.allclose(found, delta, rtol=0, atol=1e-12)


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


def test_a_look_changes_nothing_of_the_model():
    model = network("manual")
    before = copy.deepcopy(model.state_dict())
    window_deltas(model, *window(), state_of(model), last_alone=False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


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


def test_a_verdict_names_the_layer_and_the_lag():
    said = verdicts(torch.stack([torch.ones(8), 2.0 ** torch.arange(8.0)]))
    assert set(said) == {"exploding"}
    assert "in layer 1 |dL_T/dz_(T-k)| is over 10 times that at lag 0 at lag k = 4" in said["exploding"]
