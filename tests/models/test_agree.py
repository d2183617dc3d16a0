"""Three implementations, one network: outputs, states and every gradient agree, and agree with torch.nn.RNN itself."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.config.checks import _combinations
from src.config.schema import Config, ModelConfig
from src.errors import UserError
from src.models.cell import CellRNN
from src.models.convert import Layer, convert_, read_layers, write_layers
from src.models.language_model import LanguageModel, build_model
from src.models.manual import ManualRNN
from src.models.stacked import StackedRNN
from src.worked_example.bptt_example import build_problem

VOCAB, HIDDEN = 5, 7
CLASSES: dict[str, Callable[..., nn.Module]] = {"cell": CellRNN, "stacked": StackedRNN, "manual": ManualRNN}
CASES = list(itertools.product((1, 2, 3), (1, 7, 50), (1, 5), ("tanh", "relu")))


def gradients(model: nn.Module, inputs: Tensor, h_0: Tensor, pull: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Outputs, h_n, and the gradients of a scalar that reads both, by every weight (in U, W, b) and by h_0."""
    model.zero_grad()
    h_0 = h_0.clone().requires_grad_()
    hidden, h_n = model(inputs, h_0)
    ((hidden * pull[0]).sum() + (h_n * pull[1]).sum()).backward()
    found = {"hidden": hidden, "h_n": h_n, "h_0": h_0.grad}
    if isinstance(model, ManualRNN):
        sizes = [[layer.weight.size(1) - HIDDEN, HIDDEN] for layer in model.layers]
        split = [layer.weight.grad.split(size, 1) for layer, size in zip(model.layers, sizes, strict=True)]
        weights = [(U, W, layer.bias.grad) for (U, W), layer in zip(split, model.layers, strict=True)]
    else:
        weights = [(U.grad, W.grad, b.grad) for U, W, b, _ in torch_weights(model)]
    for layer, (U, W, b) in enumerate(weights):
        found |= {f"U{layer}": U, f"W{layer}": W, f"b{layer}": b}
    return {name: tensor.detach() for name, tensor in found.items()}  # type: ignore[union-attr]


def torch_weights(model: nn.Module) -> list[list[Tensor]]:
    if isinstance(model, CellRNN):
        return [[c.weight_ih, c.weight_hh, c.bias_ih, c.bias_hh] for c in model.cells]  # type: ignore[misc]
    return model.all_weights  # type: ignore[return-value]


@pytest.mark.parametrize(("num_layers", "time", "batch", "nonlinearity"), CASES)
def test_outputs_states_and_gradients_agree(num_layers: int, time: int, batch: int, nonlinearity: str) -> None:
    torch.manual_seed(0)
    words = {"input_size": VOCAB, "hidden_size": HIDDEN, "num_layers": num_layers, "nonlinearity": nonlinearity}
    torch_rnn = nn.RNN(**words).double()
    ids = torch.randint(VOCAB, (time, batch))
    h_0 = torch.randn(num_layers, batch, HIDDEN, dtype=torch.float64)  # zeros would hide a state that is ignored
    pull = torch.randn(time, batch, HIDDEN).double(), torch.randn(num_layers, batch, HIDDEN).double()
    truth = gradients(torch_rnn, nn.functional.one_hot(ids, VOCAB).double(), h_0, pull)
    for name, cls in CLASSES.items():
        model = cls(**words).double()
        write_layers(model, read_layers(torch_rnn))
        for what, value in gradients(model, ids, h_0, pull).items():
            error = (value - truth[what]).abs().max() / truth[what].abs().max().clamp(min=1)
            assert error < 1e-10, (name, what)


def equations(layers: list[Layer], skip: str, x: Tensor, h_0: Tensor) -> Tensor:
    """What the readout reads (time, batch, ...): the equations of layers.py, one a line, with a W for S beside U."""
    h, read = list(h_0), []
    for x_t in x:
        for i, (U, W, b) in enumerate(layers):
            below = x_t if i == 0 else torch.cat([h[i - 1], x_t], 1) if skip != "output" else h[i - 1]
            h[i] = torch.tanh(below @ U.T + h[i] @ W.T + b)
        read.append(h[-1] if skip == "input" else torch.cat(h, 1))
    return torch.stack(read)


@pytest.mark.parametrize("skip", ["input", "output", "both"])
@pytest.mark.parametrize(("num_layers", "time", "batch"), [(2, 1, 1), (2, 9, 3), (3, 7, 5)])
def test_skip_connections_agree_with_their_equations_in_values_and_every_gradient(
    skip: str, num_layers: int, time: int, batch: int
) -> None:
    """From a state that is not zero, ids and features; a window in two parts is the whole; a single step too."""
    torch.manual_seed(0)
    words = {"input_size": VOCAB, "hidden_size": HIDDEN, "num_layers": num_layers, "skip": skip}
    cell = CellRNN(**words).double()
    ids = torch.randint(VOCAB, (time, batch))
    x = nn.functional.one_hot(ids, VOCAB).double()
    h_0 = torch.randn(num_layers, batch, HIDDEN, dtype=torch.float64)
    expected = equations(read_layers(cell), skip, x, h_0)
    pull = torch.randn_like(expected), torch.randn_like(h_0)
    truth = gradients(cell, ids, h_0, pull)
    assert torch.allclose(truth["hidden"], expected, rtol=0, atol=1e-14)
    for name in ("stacked", "manual"):
        model = CLASSES[name](**words).double()
        convert_(model, cell)
        for inputs in (ids, x):
            found = gradients(model, inputs, h_0, pull)
            assert max((found[what] - truth[what]).abs().max() for what in truth) < 1e-12, name
        parts, state = [], h_0
        for window in ids.split(4):
            hidden, state = model(window, state)
            parts.append(hidden)
        assert torch.allclose(torch.cat(parts), expected, rtol=0, atol=1e-13)
    leaf = h_0.clone().requires_grad_()  # the slow way of manual: a second derivative
    (first,) = torch.autograd.grad((model(ids, leaf)[0] * pull[0]).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), leaf)
    theirs = h_0.clone().requires_grad_()
    (first,) = torch.autograd.grad((cell(ids, theirs)[0] * pull[0]).sum(), theirs, create_graph=True)
    assert torch.allclose(second, torch.autograd.grad(first.square().sum(), theirs)[0], rtol=0, atol=1e-11)
    if time == 1:
        return
    with torch.no_grad():
        assert torch.allclose(model(ids[:1], h_0)[0], expected[:1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("init", ["torch", "orthogonal", "identity"])
@pytest.mark.parametrize("skip", [None, "both"])
def test_one_seed_gives_one_network(init: str, skip: str | None) -> None:
    weights = []
    for cls in CLASSES.values():
        torch.manual_seed(3)
        scales = {"input_scale": 2.0, "interlayer_scale": 3.0}
        weights.append(read_layers(cls(VOCAB, HIDDEN, num_layers=2, init=init, skip=skip, **scales)))
    for layers in weights[1:]:
        for layer, first in zip(layers, weights[0], strict=True):
            for tensor, same in zip(layer, first, strict=True):
                assert torch.equal(tensor, same)
    U, W = weights[0][1].U, weights[0][0].W
    assert HIDDEN**-0.5 < U[:, :HIDDEN].abs().max() / 2 < 1.5 * HIDDEN**-0.5  # a uniform draw, times 3
    assert skip is None or U[:, HIDDEN:].abs().max() < 2 * HIDDEN**-0.5
    if init != "torch":
        assert torch.allclose(W @ W.T, torch.eye(HIDDEN), atol=1e-6)


@pytest.mark.parametrize("name", ["cell", "stacked"])
def test_one_bias_is_trained_where_one_was_asked_for(name: str) -> None:
    torch.manual_seed(0)
    model = CLASSES[name](VOCAB, HIDDEN, num_layers=2, single_bias=True)
    assert all(not b_hh.requires_grad and not b_hh.any() for _, _, _, b_hh in torch_weights(model))
    torch.manual_seed(0)
    two = CLASSES[name](VOCAB, HIDDEN, num_layers=2)
    for one, both in zip(read_layers(model), read_layers(two), strict=True):
        assert torch.allclose(one.b, both.b)


def test_weights_move_between_the_three_and_to_nothing_else() -> None:
    models = {name: cls(VOCAB, HIDDEN, num_layers=2) for name, cls in CLASSES.items()}
    ids = torch.randint(VOCAB, (6, 2))
    for source, into in itertools.permutations(models.values(), 2):
        convert_(into, source)
        assert torch.allclose(into(ids)[0], source(ids)[0], atol=1e-6)
    with pytest.raises(TypeError, match="LSTM"):
        read_layers(nn.LSTM(VOCAB, HIDDEN))
    with pytest.raises(ValueError, match="do not fit"):
        write_layers(models["cell"], read_layers(CellRNN(VOCAB, HIDDEN, num_layers=1)))


WINDOW = {"dropout": 0.4, "dropout_mask": "window"}


@pytest.mark.parametrize("keys", [{"weight_drop": 0.4}, WINDOW, {"weight_drop": 0.2, "skip": "both", **WINDOW}])
def test_equal_seeds_drop_the_same_once_a_window_in_all_three_and_nothing_in_evaluation(keys: dict[str, Any]) -> None:
    torch.manual_seed(0)
    cell = CellRNN(VOCAB, HIDDEN, num_layers=3, **keys).double()
    ids = torch.randint(VOCAB, (9, 4))
    h_0 = torch.randn(3, 4, HIDDEN, dtype=torch.float64)
    pull = torch.randn_like(cell(ids, h_0)[0]), torch.randn_like(h_0)

    def seeded(model: nn.Module, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return gradients(model, ids, h_0, pull)

    truth, other = seeded(cell, 1), seeded(cell, 2)
    for name in ("stacked", "manual"):
        model = CLASSES[name](VOCAB, HIDDEN, num_layers=3, **keys).double()
        convert_(model, cell)
        found = seeded(model, 1)
        assert max((found[what] - truth[what]).abs().max() for what in truth) < 1e-12, name
        plain = CLASSES[name](VOCAB, HIDDEN, num_layers=3, skip=keys.get("skip")).double()
        convert_(plain, cell)
        assert torch.equal(model.eval()(ids, h_0)[0], plain(ids, h_0)[0])
    dropped = truth["W1"] == 0 if "weight_drop" in keys else (truth["hidden"] == 0).all(0)  # in all steps
    assert 0.05 < dropped.double().mean() < 0.75
    assert "weight_drop" in keys or torch.equal(dropped, (truth["hidden"] == 0).any(0))
    assert not torch.allclose(truth["hidden"], other["hidden"])
    if "skip" in keys:  # a mask for each layer, and for each stream
        first, second, third = (truth["hidden"][0] == 0).split(HIDDEN, dim=1)
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)
        assert not (first == first[:1]).all()


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_a_gated_cell_drops_of_w_what_torch_s_own_does_with_these_weights(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(config(name, weight_drop=0.4, dropout=0.3), VOCAB).double().recurrence
    ids, own = torch.randint(VOCAB, (9, 4)), copy.deepcopy(model.rnn)
    torch.manual_seed(1)
    hidden, _ = model(ids)
    torch.manual_seed(1)
    with torch.no_grad():
        for W in (own.weight_hh_l0, own.weight_hh_l1):
            W.copy_(nn.functional.dropout(W, 0.4))
    torch.testing.assert_close(own(nn.functional.one_hot(ids, VOCAB).double())[0], hidden, rtol=0, atol=1e-14)


def test_what_has_no_skip_connections_refuses_a_network_with_them_in_words() -> None:
    model = ManualRNN(VOCAB, VOCAB, 2, skip="input")
    for call in (model.to_torch_rnn, lambda: model.load_torch_rnn(nn.RNN(VOCAB, VOCAB, 2))):
        with pytest.raises(ValueError, match=r"skip\W+input"):
            call()
    with pytest.raises(UserError, match=r"model\.skip=input: the worked example"):
        build_problem(LanguageModel(model, VOCAB), "abcde", [0, 1], [1, 2])
    for keys, why in (({"num_layers": 1}, "there is one layer"), ({"readout": "identity"}, "has none")):
        wrong = Config(model=config("manual", skip="both", hidden_size=VOCAB, **keys))
        assert [error for error in _combinations(wrong) if why in error]


def config(name: str, **more: object) -> ModelConfig:
    cls = {"cell": "CellRNN", "stacked": "StackedRNN", "manual": "ManualRNN", "lstm": "LSTM", "gru": "GRU"}[name]
    module = "gated" if name in ("lstm", "gru") else name
    return ModelConfig(**{"_target_": f"src.models.{module}.{cls}", "hidden_size": HIDDEN, "num_layers": 2} | more)


@pytest.mark.parametrize("name", ["cell", "stacked", "manual", "lstm", "gru"])
def test_the_state_goes_in_and_comes_out(name: str) -> None:
    """A window in one pass equals its two halves with the state carried, and differs when the state is dropped."""
    model = build_model(config(name, skip="both"), VOCAB).double()
    ids = torch.randint(VOCAB, (8, 3))
    whole, _ = model(ids)
    _, state = model(ids[:5])
    carried, _ = model(ids[5:], state)
    dropped, _ = model(ids[5:])
    assert torch.allclose(whole[5:], carried, atol=1e-12)
    assert not torch.allclose(whole[5:], dropped, atol=1e-3)
