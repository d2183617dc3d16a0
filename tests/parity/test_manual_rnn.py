"""ManualRNN against torch.nn.RNN: numbers, gradients, shapes, errors, and the ways between the two."""

from __future__ import annotations

import itertools

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn.functional import one_hot

from src.models.manual import ManualRNN, record_deltas
from tests.parity.test_bptt import off

INPUT, HIDDEN = 3, 5
F64 = torch.float64


def pair(num_layers: int = 2, **words) -> tuple[nn.RNN, ManualRNN]:
    """A torch.nn.RNN in float64 and a ManualRNN with its weights."""
    torch.manual_seed(num_layers)
    theirs = nn.RNN(INPUT, HIDDEN, num_layers, dtype=F64, **words)
    return theirs, ManualRNN(INPUT, HIDDEN, num_layers, dtype=F64, **words).load_torch_rnn(theirs)


def weight_gradients(ours: ManualRNN, their_grads: list[Tensor], per_direction: int) -> list[Tensor]:
    """torch's gradients of U, W, b_ih, b_hh as those of [U W] and b: the one bias has the gradient of either."""
    found = []
    for i in range(0, len(their_grads), per_direction):
        U, W, *biases = their_grads[i : i + per_direction]
        found += [torch.cat([U, W], 1), *biases[:1]]
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("time", [1, 2, 7, 50])
def test_values_and_all_gradients_are_torchs(num_layers, bidirectional, time, nonlinearity, bias):
    """Batches 1, 3, 32; h_0 none and random; gradients into output, into h_n, into both: under 1e-10."""
    theirs, ours = pair(num_layers, bidirectional=bidirectional, nonlinearity=nonlinearity, bias=bias)
    parameters = [p for weight_and_bias in ours.directions() for p in weight_and_bias if p is not None]
    for batch, with_h_0 in itertools.product((1, 3, 32), (False, True)):
        x = torch.randn(time, batch, INPUT, dtype=F64, requires_grad=True)
        h_0 = torch.randn(num_layers * (1 + bidirectional), batch, HIDDEN, dtype=F64, requires_grad=True)
        state = h_0 if with_h_0 else None
        begin = [x, h_0] if with_h_0 else [x]
        truth, value = theirs(x, state), ours(x, state)
        pulls = [torch.randn_like(t) for t in truth]
        assert max(off(v, t) for v, t in zip(value, truth, strict=True)) < 1e-10
        for into in ([0], [1], [0, 1]):
            pull = [pulls[i] for i in into]
            how = {"grad_outputs": pull, "retain_graph": True, "allow_unused": True}
            true = torch.autograd.grad([truth[i] for i in into], [*begin, *theirs.parameters()], **how)
            mine = torch.autograd.grad([value[i] for i in into], [*begin, *parameters], **how)
            expected = [*true[: len(begin)], *weight_gradients(ours, list(true[len(begin) :]), 4 if bias else 2)]
            for m, t in zip(mine, expected, strict=True):
                assert off(m, t) < 1e-10


def test_ids_are_one_hot_vectors_of_any_integer_type_and_layout():
    theirs, ours = pair()
    ids = torch.randint(INPUT, (7, 4))
    truth, _ = theirs(one_hot(ids, INPUT).double())
    for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8):
        assert off(ours(ids.to(dtype))[0], truth) < 1e-12
    output, h_n = ours(ids[:, 0])
    assert (output.shape, h_n.shape) == ((7, HIDDEN), (2, HIDDEN))
    assert off(output, truth[:, 0]) < 1e-12
    ours.batch_first = True
    assert off(ours(ids.T)[0], truth.transpose(0, 1)) < 1e-12


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("shape", [(4, 2, INPUT), (4, INPUT), (1, 1, INPUT), (4, 0, INPUT)])
def test_shapes_in_every_layout_are_torchs(shape, batch_first, bidirectional):
    theirs, ours = pair(batch_first=batch_first, bidirectional=bidirectional)
    x = torch.randn(shape, dtype=F64)
    if batch_first and 0 in shape:
        x = x.transpose(0, 1)
    truth = theirs(x)
    h_0 = torch.randn_like(truth[1])
    for arguments in ((x,), (x, None), (x, h_0)):
        for value, true in zip(ours(*arguments), theirs(*arguments), strict=True):
            assert value.shape == true.shape
            torch.testing.assert_close(value, true, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours(input=x, hx=h_0)[0], ours(x, h_0)[0])  # the names of torch's call


def x_of(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=F64)


@pytest.mark.parametrize(
    "arguments",
    [
        [x_of(5, 2, INPUT, 1)], [x_of(5, 2, INPUT + 1)], [x_of(5, 2, INPUT), x_of(1, 2, HIDDEN)],
        [x_of(5, 2, INPUT), x_of(2, 3, HIDDEN)], [x_of(5, INPUT), x_of(2, 1, HIDDEN)],
        [x_of(5, 2, INPUT), x_of(2, HIDDEN)], [x_of(5, 2, INPUT).float()], [x_of(5, 2, INPUT).to("meta")],
        [x_of(0, 2, INPUT)],
    ],
    ids=lambda tensors: " ".join(str(tuple(tensor.shape)) for tensor in tensors),
)  # fmt: skip
def test_a_wrong_call_is_refused_as_torch_refuses_it(arguments):
    theirs, ours = pair()
    with pytest.raises(Exception, match=r".") as torchs:
        theirs(*arguments)
    with pytest.raises(type(torchs.value), match=r"\d|got|device|larger"):
        ours(*arguments)


@pytest.mark.parametrize(
    "words", [{"input_size": 0}, {"num_layers": 1.5}, {"nonlinearity": "sigmoid"}, {"dropout": 2}], ids=str
)
def test_a_wrong_argument_is_refused_as_torch_refuses_it(words):
    right = {"input_size": INPUT, "hidden_size": HIDDEN}
    with pytest.raises(Exception, match=r".") as torchs:
        nn.RNN(**(right | words))
    with pytest.raises((type(torchs.value), TypeCheckError), match=r"."):  # the tests' type checker comes before torch
        ManualRNN(**(right | words))


def test_packed_sequences_are_refused_with_a_way_out():
    packed = nn.utils.rnn.pack_sequence([x_of(4, INPUT), x_of(2, INPUT)])
    with pytest.raises(TypeError, match=r"pad_packed_sequence.*to_torch_rnn"):
        pair()[1](packed)


def test_dropout_drops_what_torch_drops_and_nothing_in_evaluation():
    theirs, ours = pair(3, dropout=0.5)
    x = x_of(7, 4, INPUT)
    torch.manual_seed(1)
    truth, _ = theirs(x)
    torch.manual_seed(1)
    assert off(ours(x)[0], truth) < 1e-12
    assert off(ours(x)[0], truth) > 0.1  # another draw
    assert off(ours.eval()(x)[0], theirs.eval()(x)[0]) < 1e-12


@pytest.mark.parametrize("words", [{}, {"bias": False}, {"bidirectional": True, "batch_first": True}], ids=str)
def test_the_way_to_torch_and_back_loses_nothing(words):
    torch.manual_seed(0)
    ours = ManualRNN(INPUT, HIDDEN, 2, nonlinearity="relu", dropout=0.25, dtype=F64, **words).eval()
    ours.layers[0].requires_grad_(False)
    generator = torch.get_rng_state()
    theirs = ours.to_torch_rnn()
    assert torch.equal(generator, torch.get_rng_state())  # nothing is drawn on the way
    assert [p.requires_grad for p in theirs.parameters()] == sorted([False, True] * (len(theirs._flat_weights) // 2))
    assert (theirs.training, theirs.dropout, theirs.batch_first) == (False, 0.25, ours.batch_first)
    x = x_of(4, 2, INPUT)
    assert off(theirs(x)[0], ours(x)[0]) < 1e-12
    back = ManualRNN(INPUT, HIDDEN, 2, nonlinearity="relu", dtype=F64, **words).load_torch_rnn(theirs)
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("words", [{"num_layers": 2, "bidirectional": True}, {"num_layers": 1, "bias": False}], ids=str)
def test_the_state_dict_of_torchs_rnn_loads_also_inside_of_another_module(words):
    theirs, ours = pair(**words)
    fresh = nn.Sequential(ManualRNN(INPUT, HIDDEN, dtype=F64, **words))
    fresh.load_state_dict({f"0.{name}": value for name, value in theirs.state_dict().items()})
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(fresh[0].state_dict()[name], value, rtol=0, atol=1e-15)
    with pytest.raises(RuntimeError, match=r"layers\.0\.weight"):
        ManualRNN(INPUT, HIDDEN + 1, dtype=F64, **words).load_state_dict(theirs.state_dict())


def test_weights_of_another_kind_are_refused():
    ours = ManualRNN(INPUT, HIDDEN, 2)
    with pytest.raises(ValueError, match="'hidden_size': 6"):
        ours.load_torch_rnn(nn.RNN(INPUT, 6, 2))
    with pytest.raises(TypeError, match="LSTM"):
        ours.load_torch_rnn(nn.LSTM(INPUT, HIDDEN, 2))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_seed_draws_torchs_weights_and_leaves_the_generator_where_torch_does(bidirectional):
    torch.manual_seed(7)
    theirs = nn.RNN(INPUT, HIDDEN, 3, bidirectional=bidirectional)
    next_number = torch.rand(1)
    torch.manual_seed(7)
    ours = ManualRNN(INPUT, HIDDEN, 3, bidirectional=bidirectional)
    assert torch.equal(torch.rand(1), next_number)
    for (weight, bias), (U, W, b_ih, b_hh) in zip(ours.directions(), theirs.all_weights, strict=True):
        assert torch.equal(weight, torch.cat([U, W], 1))
        assert torch.equal(bias, b_ih + b_hh)


def test_init_and_both_scales_start_the_weights_as_they_say():
    torch.manual_seed(0)
    plain = ManualRNN(INPUT, HIDDEN, 2)
    torch.manual_seed(0)
    scaled = ManualRNN(INPUT, HIDDEN, 2, init="orthogonal", input_scale=3.0, interlayer_scale=1.5)
    for layer, scale in ((0, 3.0), (1, 1.5)):
        before, after = plain.layers[layer].weight, scaled.layers[layer].weight
        W = after[:, -HIDDEN:]
        assert torch.equal(after[:, :-HIDDEN], before[:, :-HIDDEN] * scale)
        assert torch.allclose(W @ W.T, torch.eye(HIDDEN), atol=1e-6)
    identity = ManualRNN(INPUT, HIDDEN, init="identity")
    assert torch.equal(identity.layers[0].weight[:, -HIDDEN:], torch.eye(HIDDEN))
    assert not identity.layers[0].bias.any()


def autograds_deltas(ours: ManualRNN, ids: Tensor, h_0: Tensor, pull: Tensor) -> list[Tensor]:
    """dL/dz of every layer, found by autograd through a loop over steps."""
    x, zs = one_hot(ids, INPUT).double(), []
    for (weight, bias), h_t in zip(ours.directions(), h_0, strict=True):
        outputs, of_layer = [], []
        for x_t in x:
            of_layer.append(torch.cat([x_t, h_t], 1) @ weight.T + bias)
            h_t = torch.tanh(of_layer[-1])
            outputs.append(h_t)
        x = torch.stack(outputs)
        zs.append(of_layer)
    found = torch.autograd.grad(x, [z for of_layer in zs for z in of_layer], pull)
    return [torch.stack(found[i : i + len(ids)]) for i in range(0, len(found), len(ids))]


def test_recorded_deltas_are_autograds_gradients_of_z():
    _, ours = pair(3)
    ids, h_0 = torch.randint(INPUT, (7, 4)), x_of(3, 4, HIDDEN)
    pull = x_of(7, 4, HIDDEN)
    pull[:-1] = 0  # the last step's loss alone, as in a picture of the gradient by lag
    truth = autograds_deltas(ours, ids, h_0, pull)
    with record_deltas(ours) as deltas:
        output, _ = ours(ids, h_0)
        assert deltas == [None] * 3
        output.backward(pull)
    assert max(off(mine, true) for mine, true in zip(deltas, truth, strict=True)) < 1e-12
    assert deltas[0][0].norm() < deltas[0][-1].norm()


def test_recording_changes_no_gradient():
    _, ours = pair(bidirectional=True, dropout=0.0)
    x = x_of(7, 4, INPUT)
    plain = torch.autograd.grad(ours(x)[0].sum(), list(ours.parameters()))
    with record_deltas(ours) as deltas:
        recorded = torch.autograd.grad(ours(x)[0].sum(), list(ours.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))
    assert all(off(d.sum((0, 1)), g) < 1e-12 for d, g in zip(deltas, recorded[1::2], strict=True))  # db = sum of deltas


@pytest.mark.parametrize("state_dtype", [torch.float32, torch.bfloat16, None])
def test_under_autocast_it_has_torchs_types(state_dtype):
    theirs, ours = (model.float() for model in pair())
    x = torch.randn(7, 4, INPUT)
    h_0 = None if state_dtype is None else torch.randn(2, 4, HIDDEN, dtype=state_dtype)
    with torch.autocast("cpu", torch.bfloat16):
        truth, value = theirs(x, h_0), ours(x, h_0)
    assert [v.dtype for v in value] == [t.dtype for t in truth]
    assert off(value[0], truth[0]) < 0.05
    value[0].float().square().sum().backward()
    assert {p.grad.dtype for p in ours.parameters()} == {torch.float32}


@pytest.mark.parametrize("ids", [False, True])
def test_per_example_gradients_by_torch_func_are_right(ids):
    _, ours = pair()
    x = torch.randint(INPUT, (5, 3)) if ids else x_of(5, 3, INPUT)
    weights = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(ours, weights, (one[:, None],))[0].sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(weights, x)
    ours(x)[0].sum().backward()
    for name, p in ours.named_parameters():
        assert off(each[name].sum(0), p.grad) < 1e-12


@pytest.mark.parametrize(
    ("dtype", "state_dtype", "tolerance"),
    [(F64, F64, 1e-12), (torch.float32, torch.float32, 0.05), (torch.float32, torch.bfloat16, 0.05)],
)
def test_a_gradient_penalty_of_a_carried_state_trains_as_through_torch(dtype, state_dtype, tolerance):
    grads = []
    for model in (model.to(dtype) for model in pair()):
        ids = torch.arange(8).view(4, 2) % INPUT
        h_0 = torch.linspace(-1, 1, 2 * 2 * HIDDEN, dtype=F64).view(2, 2, HIDDEN).to(state_dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not F64):
            x = ids if isinstance(model, ManualRNN) else one_hot(ids, INPUT).to(dtype)
            output, h_n = model(x, h_0)
        (slope,) = torch.autograd.grad(output.to(F64).sum() + h_n.to(F64).sum(), h_0, create_graph=True)
        slope.to(F64).square().sum().backward()
        grads.append(torch.cat([p.grad for p in model.parameters() if p.dim() == 2], 1))
    assert grads[1].dtype is dtype
    assert off(grads[1], grads[0]) < tolerance


@pytest.mark.parametrize("words", [{}, {"num_layers": 1}, {"batch_first": True}, {"bidirectional": True}], ids=str)
def test_what_is_returned_may_be_changed_in_place_as_torchs_may(words):
    found = []
    for model in pair(**words):
        output, h_n = model(torch.linspace(-1, 1, 4 * 2 * INPUT, dtype=F64).view(4, 2, INPUT))
        torch.relu_(output)
        h_n += 1
        (output.square().sum() + h_n.square().sum()).backward()
        found.append((output, h_n, sum(p.grad.square().sum() for p in model.parameters() if p.dim() == 2)))
    assert max(off(mine, true) for mine, true in zip(found[1], found[0], strict=True)) < 1e-12


def test_a_lent_output_is_the_same_and_a_change_in_place_is_told_and_not_computed_with():
    _, ours = pair()
    x = x_of(7, 4, INPUT)
    kept, _ = ours(x)
    ours.lends_output = True
    lent, _ = ours(x)
    assert torch.equal(lent, kept)
    torch.relu_(lent)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        lent.sum().backward()
