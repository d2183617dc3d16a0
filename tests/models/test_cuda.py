"""What is for the GPU, tested without one: the rules for cuDNN, the layers one by one, the captured loops."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from src.models import cuda, kernels
from src.models.bptt import recurrence, reference
from src.models.cuda import SMALL_H, STANDARD, STATIC, cudnn_algorithm, layer_plan, run_apart
from tests.fake_graph import Captures

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64


def test_the_algorithm_is_the_one_that_torchs_rules_give():
    """From aten/src/ATen/native/cudnn/RNN.cpp: (kind, dtype, H, input, batch, layers) -> forward, backward."""
    for sizes, expected in {
        ("rnn", F32, 448, 65, 64, 2): (STANDARD, STANDARD),
        ("rnn", F32, 256, 65, 64, 2): (SMALL_H, SMALL_H),
        ("rnn", BF16, 384, 65, 64, 2): (SMALL_H, STANDARD),
        ("rnn", F64, 64, 65, 64, 1): (STANDARD, STANDARD),
        ("rnn", F16, 512, 128, 64, 1): (STATIC, STATIC),
        ("rnn", F16, 512, 65, 64, 1): (STANDARD, STANDARD),
        ("rnn", F16, 512, 128, 64, 2): (STANDARD, STANDARD),
        ("rnn", BF16, 512, 128, 64, 1): (STANDARD, STANDARD),
        ("rnn", F16, 512, 128, 60, 1): (STANDARD, STANDARD),
        ("rnn", F16, 1024, 128, 96, 1): (STANDARD, STANDARD),
        ("rnn", F16, 1024, 128, 64, 1): (STATIC, STATIC),
        ("rnn", F16, 1152, 128, 64, 1): (STANDARD, STANDARD),
        ("lstm", F32, 160, 65, 64, 1): (SMALL_H, STANDARD),
        ("lstm", F16, 768, 128, 128, 1): (STATIC, STATIC),
        ("gru", F16, 768, 128, 128, 1): (STANDARD, STANDARD),
    }.items():
        assert tuple(cudnn_algorithm(*sizes, forward) for forward in (True, False)) == expected, sizes
    for card in (((8, 6), 108), ((8, 0), 56), ((7, 5), 132)):
        assert cudnn_algorithm("rnn", F16, 512, 128, 64, 1, True, *card) == STANDARD, card


def test_the_layers_are_called_apart_where_that_is_faster_or_exact():
    plain = {"autocast": False, "dropout": False}
    assert layer_plan("rnn", F32, 448, 65, 64, 2, **plain) == (False, 65)
    assert layer_plan("rnn", F32, 448, 65, 64, 2, autocast=False, dropout=True) == (True, 65)
    assert layer_plan("rnn", F16, 640, 65, 64, 2, autocast=True, dropout=True) == (True, 128)
    assert layer_plan("rnn", F16, 640, 130, 64, 2, **plain) == (True, 256)
    assert layer_plan("rnn", BF16, 640, 65, 64, 2, autocast=True, dropout=False) == (True, 65)
    assert layer_plan("rnn", F16, 384, 65, 64, 2, **plain) == (False, 65)  # SMALL_H forward: no mixture


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("padded", [5, 8])
def test_layers_one_by_one_compute_what_torchs_module_does(kind, padded):
    torch.manual_seed(0)
    rnn = kind(5, 7, 3).double()
    x = torch.randn(6, 4, 5, dtype=F64, requires_grad=True)
    parts = [torch.randn(3, 4, 7, dtype=F64, requires_grad=True) for _ in range(2 if kind is nn.LSTM else 1)]
    state = tuple(parts) if kind is nn.LSTM else parts[0]
    pull = torch.randn(6, 4, 7, dtype=F64)
    found = []
    for call in (rnn, lambda x, state: run_apart(rnn, x, state, padded, F64)):
        hidden, end = call(x, state)
        ends = end if kind is nn.LSTM else (end,)
        total = (hidden * pull).sum() + sum((one * pull[0]).sum() for one in ends)
        found.append([hidden, *ends, *torch.autograd.grad(total, [x, *parts, *rnn.parameters()])])
    for value, truth in zip(*reversed(found), strict=True):
        assert torch.allclose(value, truth, rtol=1e-12, atol=1e-13)
    zeros = run_apart(rnn, x, None, padded, F64)[0]
    assert torch.allclose(zeros, rnn(x)[0], rtol=1e-12, atol=1e-13)


def test_dropout_between_layers_is_torchs_own_and_the_state_of_its_generator_repeats_it():
    rnn = nn.RNN(5, 7, 2, dropout=0.5)
    x = torch.randn(6, 4, 5)
    states, seen = torch.get_rng_state(), []
    for _ in range(2):
        torch.set_rng_state(states)
        seen.append(run_apart(rnn, x, None, 5, F32)[0])
    assert torch.equal(*seen)
    assert not torch.equal(seen[0], run_apart(rnn, x, None, 5, F32)[0])
    assert torch.allclose(run_apart(rnn.eval(), x, None, 5, F32)[0], rnn.eval()(x)[0], atol=1e-6)


def grads(function, x: Tensor, weight: Tensor, bias: Tensor, h_0: Tensor | None, *how) -> list[Tensor]:
    hidden, h_n = function(x, weight, bias, h_0, *how)
    pull = torch.randn(hidden.shape, dtype=hidden.dtype, generator=torch.Generator().manual_seed(1))
    leaves = [leaf for leaf in (x, weight, bias, h_0) if leaf is not None and leaf.requires_grad]
    return [hidden, h_n, *torch.autograd.grad((hidden * pull).sum() + (h_n * pull[0]).sum(), leaves)]


CASES = list(itertools.product(["tanh", "relu"], [False, True], [False, True]))


@pytest.mark.parametrize(("nonlinearity", "reverse", "ids"), CASES)
def test_a_captured_loop_computes_the_reference_again_and_again(nonlinearity, reverse, ids, monkeypatch):
    captures = Captures()
    monkeypatch.setattr(cuda, "capture", captures)
    monkeypatch.setattr(cuda, "takes_graph", lambda hidden: True)
    monkeypatch.setattr(kernels, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(cuda, "captured_loops", {})
    monkeypatch.setattr(cuda, "MOST_GRAPHS", 3)  # no more are needed, or one is captured again
    for seed in range(3):
        torch.manual_seed(seed)
        weight = torch.randn(4, 9, dtype=F64, requires_grad=True)
        bias, h_0 = (torch.randn(size, dtype=F64, requires_grad=True) for size in ((4,), (3, 4)))
        x = torch.randint(5, (12, 3)) if ids else torch.randn(12, 3, 5, dtype=F64, requires_grad=True)
        for state in (h_0, None):
            pairs = zip(grads(recurrence, x, weight, bias, state, nonlinearity, reverse),
                        grads(reference, x, weight, bias, state, nonlinearity, reverse), strict=True)  # fmt: skip
            for value, truth in pairs:
                assert torch.allclose(value, truth, rtol=1e-10, atol=1e-12)
    assert (captures.captured, captures.replayed) == (3, 12)  # forward from a state, from none, and backward


def test_the_loop_that_was_used_longest_ago_makes_room(monkeypatch):
    captures, waits = Captures(), []
    monkeypatch.setattr(cuda, "capture", captures)
    monkeypatch.setattr(cuda, "takes_graph", lambda hidden: True)
    monkeypatch.setattr(cuda, "captured_loops", {})
    monkeypatch.setattr(cuda, "MOST_GRAPHS", 2)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    for steps in (9, 10, 9, 11, 9, 10):
        cuda.forward_walk(torch.zeros(steps, 2, 3, dtype=F64), torch.eye(3, dtype=F64), None, "tanh", False)
    assert captures.captured == 4  # 9, 10 and 11, and 10 again
    assert len(waits) == len(cuda.captured_loops) == 2


@pytest.mark.parametrize(("nonlinearity", "reverse", "ids"), CASES)
def test_the_kernel_of_all_steps_is_asked_for_what_the_reference_computes(nonlinearity, reverse, ids, monkeypatch):
    def launch(x: Tensor, M_T: Tensor, start: Tensor | None, h: Tensor | None, relu: bool, backwards: bool) -> None:
        assert (M_T.is_contiguous(), x.is_contiguous(), relu) == (True, True, nonlinearity == "relu")
        asked_for.append(h is not None)
        state = start
        for t in reversed(range(len(x))) if backwards else range(len(x)):
            z = x[t] if state is None else x[t] + state @ M_T
            slope = 1 if h is None else (h[t] > 0).to(z) if relu else 1 - h[t] ** 2
            state = x[t] = z * slope if h is not None else z.relu() if relu else z.tanh()

    asked_for: list[bool] = []
    monkeypatch.setitem(sys.modules, "src.models.triton_walk", SimpleNamespace(launch=launch))
    monkeypatch.setattr(kernels, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(kernels, "tanh_by_sigmoid", lambda *_: False)  # of a tensor in main memory
    torch.manual_seed(0)
    weight, bias, h_0 = (torch.randn(size, requires_grad=True) for size in ((4, 9), (4,), (3, 4)))
    x = torch.randint(5, (12, 3)) if ids else torch.randn(12, 3, 5, requires_grad=True)
    for state in (h_0, None):
        how = x, weight, bias, state, nonlinearity, reverse
        for value, truth in zip(grads(recurrence, *how), grads(reference, *how), strict=True):
            assert torch.allclose(value, truth, rtol=1e-4, atol=1e-4)
    assert asked_for == [False, True] * 2


def test_a_loop_that_cannot_be_captured_runs_as_it_is(monkeypatch, caplog):
    def broken(function, device):
        raise RuntimeError("CUDA error: no graphs today\nsearch for advice")

    monkeypatch.setattr(cuda, "capture", broken)
    monkeypatch.setattr(cuda, "takes_graph", lambda hidden: True)
    monkeypatch.setattr(cuda, "captured_loops", {})
    monkeypatch.setattr(cuda, "_without_triton", [])
    monkeypatch.setitem(sys.modules, "src.models.triton_walk", None)  # an import of it fails
    for _ in range(2):
        hidden, W = torch.ones(9, 2, 3), torch.eye(3)
        cuda.forward_walk(hidden, W, None, "relu", False)
        assert torch.equal(hidden[:, 0, 0], torch.arange(1.0, 10.0))
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("model=manual runs without its Triton kernel: import of src.models.triton_walk halted")
    assert second == (
        "a loop over time could not be captured in a CUDA graph and runs without: CUDA error: no graphs today"
    )


def test_sums_by_id_are_one_product():
    delta, ids = torch.randn(7, 3, 4, dtype=F64), torch.randint(5, (7, 3))
    assert torch.allclose(cuda.sums_by_id(delta, ids, 6), kernels.scatter(delta, ids, 6), atol=1e-12)
