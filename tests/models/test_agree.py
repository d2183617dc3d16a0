"""Three implementations, one network: outputs, states and every gradient agree, and agree with torch.nn.RNN itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from src.config.schema import ModelConfig
from src.models.cell import CellRNN
from src.models.convert import convert_, read_layers, write_layers
from src.models.language_model import build_model
from src.models.manual import ManualRNN
from src.models.stacked import StackedRNN

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
    return (model.rnn if isinstance(model, StackedRNN) else model).all_weights  # type: ignore[return-value]


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


@pytest.mark.parametrize("init", ["torch", "orthogonal", "identity"])
def test_one_seed_gives_one_network(init: str) -> None:
    weights = []
    for cls in CLASSES.values():
        torch.manual_seed(3)
        weights.append(read_layers(cls(VOCAB, HIDDEN, num_layers=2, init=init, input_scale=2.0, interlayer_scale=3.0)))
    for layers in weights[1:]:
        for layer, first in zip(layers, weights[0], strict=True):
            for tensor, same in zip(layer, first, strict=True):
                assert torch.equal(tensor, same)
    W = weights[0][0].W
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


def config(name: str, **more: object) -> ModelConfig:
    cls = {"cell": "CellRNN", "stacked": "StackedRNN", "manual": "ManualRNN", "lstm": "LSTM", "gru": "GRU"}[name]
    module = "gated" if name in ("lstm", "gru") else name
    return ModelConfig(**{"_target_": f"src.models.{module}.{cls}", "hidden_size": HIDDEN, "num_layers": 2} | more)


@pytest.mark.parametrize("name", ["cell", "stacked", "manual", "lstm", "gru"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_language_model_has_one_call_on_every_device(name: str, device: str) -> None:
    model = build_model(config(name, dropout=0.5, init="orthogonal"), VOCAB).to(device)
    ids = torch.randint(VOCAB, (6, 3)).to(device)
    logits, state = model(ids)
    again, state = model(ids[:1], state)
    assert (logits.shape, again.shape) == ((6, 3, VOCAB), (1, 3, VOCAB))
    assert (state[0].shape if name == "lstm" else state.shape) == (2, 3, HIDDEN)
    assert logits.device.type == again.device.type == device


@pytest.mark.parametrize("name", ["cell", "stacked", "manual", "lstm", "gru"])
def test_the_state_goes_in_and_comes_out(name: str) -> None:
    """A window in one pass equals its two halves with the state carried, and differs when the state is dropped."""
    model = build_model(config(name), VOCAB).double()
    ids = torch.randint(VOCAB, (8, 3))
    whole, _ = model(ids)
    _, state = model(ids[:5])
    carried, _ = model(ids[5:], state)
    dropped, _ = model(ids[5:])
    assert torch.allclose(whole[5:], carried, atol=1e-12)
    assert not torch.allclose(whole[5:], dropped, atol=1e-3)
