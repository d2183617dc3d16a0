"""The written-out backward pass against the slow reference and autograd, in float64 where equality is claimed."""

from __future__ import annotations

import itertools
import os
import signal
import timeit

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from src.models import kernels
from src.models.bptt import recurrence, reference, reference_backward
from src.models.kernels import split

INPUT, HIDDEN = 5, 4
F64 = torch.float64


def layer(steps: int, batch: int, *, ids: bool = False, dtype: torch.dtype = F64, hidden: int = HIDDEN):
    """Random inputs, weight, bias and h_0 of one layer; everything that can asks for its gradient."""
    torch.manual_seed(steps * 100 + batch)
    weight = (torch.randn(hidden, INPUT + hidden, dtype=F64) / hidden**0.5).to(dtype).requires_grad_()
    bias = torch.randn(hidden, dtype=dtype, requires_grad=True)
    h_0 = torch.randn(batch, hidden, dtype=dtype, requires_grad=True)
    if ids:
        return torch.randint(INPUT, (steps, batch)), weight, bias, h_0
    return torch.randn(steps, batch, INPUT, dtype=dtype, requires_grad=True), weight, bias, h_0


def asking(leaves) -> list[Tensor]:
    return [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]


def off(value: Tensor, truth: Tensor) -> float:
    """The largest difference, as a share of the largest number of the truth."""
    value, truth = value.detach().to(F64), truth.detach().to(F64)
    return float((value - truth).abs().max() / truth.abs().max().clamp(min=1e-30))


@pytest.fixture
def threads(monkeypatch):
    """Two threads, each with its own columns, whatever the sizes."""
    monkeypatch.setattr(kernels, "LEAST_COLUMNS", 1)
    monkeypatch.setattr(kernels, "pays_to_share", lambda size: True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["mixed", *(f"{by}{n}" for by in ("numpy", "torch", "sigmoid") for n in ("", ", two threads"))])
def way(request, monkeypatch):
    """Each way through a window, whatever sizes and threads would choose."""
    if "two threads" in request.param:
        request.getfixturevalue("threads")
    monkeypatch.setattr(kernels, "is_small", lambda hidden: request.param not in ("torch", "torch, two threads"))
    by_numpy, by_sigmoid = request.param in ("numpy", "numpy, two threads"), request.param.startswith("sigmoid")
    monkeypatch.setattr(kernels, "tanh_by_sigmoid", lambda nonlinearity, W: by_sigmoid and nonlinearity == "tanh")
    monkeypatch.setattr(kernels, "numpy_multiplies", lambda rows, n: by_numpy)


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_h_0", [False, True])
def test_values_and_every_gradient_equal_the_reference(ids, reverse, nonlinearity, with_bias, with_h_0, way):
    for steps, batch in itertools.product((1, 2, 7, 40), (1, 3)):
        x, weight, bias, h_0 = layer(steps, batch, ids=ids)
        leaves = x, weight, bias if with_bias else None, h_0 if with_h_0 else None
        fast = recurrence(*leaves, nonlinearity, reverse)
        slow = reference(*leaves, nonlinearity, reverse)
        pull = [torch.randn_like(value) for value in slow]
        fast_grads = torch.autograd.grad(fast, asking(leaves), pull)
        slow_grads = torch.autograd.grad(slow, asking(leaves), pull)
        for value, truth in zip((*fast, *fast_grads), (*slow, *slow_grads), strict=True):
            assert off(value, truth) < 1e-11


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_equations_written_one_a_line_are_what_autograd_finds(nonlinearity):
    x, weight, bias, h_0 = layer(7, 3)
    hidden, h_n = reference(x, weight, bias, h_0, nonlinearity)
    pull = torch.randn_like(hidden), torch.randn_like(h_n)
    dx, dweight, db, dh_0 = torch.autograd.grad((hidden, h_n), (x, weight, bias, h_0), pull)
    into_hidden = pull[0].clone()
    into_hidden[-1] += pull[1]
    ours = reference_backward(x.detach(), weight.detach(), h_0.detach(), hidden.detach(), into_hidden, nonlinearity)
    truth = {"x": dx, "U": split(dweight)[0], "W": split(dweight)[1], "b": db, "h_0": dh_0}
    assert {name: off(ours[name], value) < 1e-12 for name, value in truth.items()} == dict.fromkeys(truth, True)


@pytest.mark.parametrize("batch", [1, 3, 33])  # fewer streams than threads; shares of unequal size
def test_two_threads_repeat_their_bits_and_raise_what_one_of_them_raises(batch, threads, monkeypatch):
    leaves = layer(9, batch, hidden=40)
    one, other = (recurrence(*leaves)[0] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.autograd.grad(one.sum(), leaves[1])[0], torch.autograd.grad(other.sum(), leaves[1])[0])
    monkeypatch.setattr(kernels, "Activation", lambda *_: 1 / 0)
    monkeypatch.setattr(kernels, "is_small", lambda hidden: False)
    with pytest.raises(ZeroDivisionError):
        recurrence(*leaves)


def test_a_forked_process_has_threads_of_its_own(threads):
    """Without them the child would wait for threads that only its parent has."""
    parts, seen = [slice(0, 1), slice(1, 2)], []
    kernels.side_by_side(seen.append, parts)
    if (child := os.fork()) == 0:
        signal.alarm(20)
        kernels.side_by_side(seen.append, parts)
        os._exit(0 if len(seen) == 4 else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_gradcheck_and_the_second_derivative_pass():
    leaves = layer(3, 2)
    for nonlinearity, reverse in (("tanh", False), ("tanh", True), ("relu", False)):
        assert torch.autograd.gradcheck(lambda *a, n=nonlinearity, r=reverse: recurrence(*a, n, r), leaves)
    assert torch.autograd.gradgradcheck(recurrence, leaves)


class Products(TorchDispatchMode):
    """Counts the matrix products that run inside."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("asked", "products"), [("x", 4 + 1), ("weight", 4 + 3), ("h_0", 4 + 1), ("bias", 4), ("x weight bias h_0", 4 + 5)]
)
def test_only_the_gradients_that_are_asked_for_are_computed(asked, products, monkeypatch):
    """Five steps: four products with W, then one each for dx and dh_0, and for dU, dW and dW's share of h_0."""
    monkeypatch.setattr(kernels, "numpy_multiplies", lambda rows, n: False)  # torch's products are what is counted
    leaves = dict(zip(("x", "weight", "bias", "h_0"), layer(5, 2), strict=True))
    for name, leaf in leaves.items():
        leaf.requires_grad_(name in asked.split())
    hidden, h_n = recurrence(*leaves.values())
    with Products() as seen:
        (hidden.sum() + h_n.sum()).backward()
    assert seen.count == products
    assert {name for name, leaf in leaves.items() if leaf.grad is not None} == set(asked.split())


def test_without_gradients_autograd_is_not_entered():
    x, weight, bias, h_0 = layer(5, 2)
    truth, _ = reference(x, weight, bias, h_0)
    with torch.no_grad():
        hidden, _ = recurrence(x, weight, bias, h_0)
    assert hidden.grad_fn is None
    assert off(hidden, truth) < 1e-12
    with torch.inference_mode():
        assert off(recurrence(x, weight, bias, h_0)[1], truth[-1]) < 1e-12


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_lower_precisions_stay_near_float64(ids, dtype, tolerance):
    exact = layer(20, 8, ids=ids, hidden=32)
    rounded = [x.detach().to(dtype).requires_grad_() if x.is_floating_point() else x for x in exact]
    truth, value = reference(*exact), recurrence(*rounded)
    assert {v.dtype for v in value} == {dtype}
    pull = torch.randn(20, 8, 32, dtype=F64) / 20
    true_grads = torch.autograd.grad(truth[0], asking(exact), pull)
    grads = torch.autograd.grad(value[0], asking(rounded), pull.to(dtype))
    for mine, true in zip((*value, *grads), (*truth, *true_grads), strict=True):
        assert mine.dtype is dtype
        assert off(mine, true) < tolerance


@pytest.mark.parametrize("ids", [False, True])
def test_autocast_multiplies_in_bfloat16_and_keeps_weights_and_gradients_in_float32(ids):
    exact = layer(20, 8, ids=ids, hidden=32)
    single = [x.detach().float().requires_grad_() if x.is_floating_point() else x for x in exact]
    truth, _ = reference(*exact)
    pull = torch.randn_like(truth) / 20
    with torch.autocast("cpu", torch.bfloat16):
        hidden, h_n = recurrence(*single)
        inside = torch.autograd.grad(hidden, asking(single), pull.bfloat16(), retain_graph=True)
    assert hidden.dtype is h_n.dtype is torch.bfloat16
    grads = torch.autograd.grad(hidden, asking(single), pull.bfloat16())
    for mine, true in zip((hidden, *grads), (truth, *torch.autograd.grad(truth, asking(exact), pull)), strict=True):
        assert off(mine, true) < 0.06
    assert {grad.dtype for grad in grads} == {torch.float32}
    assert all(torch.equal(a, b) for a, b in zip(grads, inside, strict=True))  # in or out of the block, to the bit


def test_a_sum_of_many_bfloat16_deltas_does_not_stand_still():
    delta = torch.ones(1001, 1, 2, dtype=torch.bfloat16)  # in bfloat16 256 + 1 = 256, and 1001 is 1000
    columns = kernels.scatter(delta, torch.zeros(1001, 1, dtype=torch.long), 3)
    assert columns.tolist() == [[1001.0, 1001.0], [0.0, 0.0], [0.0, 0.0]]
    for x in (torch.zeros(1001, 1, dtype=torch.long), torch.ones(1001, 1, 3).bfloat16()):  # ids, features
        weight, hidden = torch.zeros(2, 5).bfloat16(), torch.zeros(1001, 1, 2).bfloat16()
        _, dweight, db, _ = kernels.gradients(delta, x, weight, None, hidden, False, (False, True, True, False))
        assert db.tolist() == [1001.0, 1001.0]
        assert dweight.dtype is db.dtype is torch.float32  # and dU of ids is exact; a product comes rounded once
        assert dweight[0, 0] == (1000.0 if x.is_floating_point() else 1001.0)


def test_a_gradient_that_vanishes_is_no_error_whatever_numpy_was_told():
    leaves = [(leaf.detach() * 1e-3).requires_grad_() for leaf in layer(60, 2, dtype=torch.float32)]
    leaves[0] = leaves[0].detach() * 1e-39  # numbers that have no exact tanh, either

    def run() -> tuple[Tensor, ...]:
        hidden, h_n = recurrence(*leaves)
        return hidden, *torch.autograd.grad(h_n.sum(), leaves[1:])

    with np.errstate(all="raise"):
        found = run()
    assert found[3].count_nonzero() == 0  # dL/dh_0, after 60 steps back
    assert all(torch.equal(mine, true) for mine, true in zip(found, run(), strict=True))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 640), (torch.bfloat16, 128)])
def test_packed_weights_change_the_time_and_not_the_numbers(dtype, size, monkeypatch):
    leaves = layer(16, 8, dtype=dtype, hidden=size)
    if not kernels.Affine(split(leaves[1])[1], 8, 16).packed:
        pytest.skip("this torch packs no weights on this machine")

    def run() -> tuple[Tensor, ...]:
        hidden, _ = recurrence(*leaves)
        return hidden, *torch.autograd.grad(hidden.square().sum(), leaves)

    packed, again = run(), run()
    assert all(torch.equal(a, b) for a, b in zip(packed, again, strict=True))  # equal runs are equal bit by bit
    monkeypatch.setattr(kernels, "pays_to_pack", lambda M, rows: False)
    for value, plain in zip(packed, run(), strict=True):
        assert off(value, plain) < (1e-5 if dtype is torch.float32 else 0.03)


def test_what_is_private_of_torch_is_as_kernels_py_expects():
    a, c, M = torch.randn(16, 384), torch.randn(16, 384), torch.randn(384, 384) / 20
    mkldnn = torch.ops.mkldnn
    checks = {
        "_is_amx_tile_supported": lambda: torch.cpu._is_amx_tile_supported() in (True, False),
        "_is_mkldnn_bf16_supported": lambda: mkldnn._is_mkldnn_bf16_supported() in (True, False),
        "_reorder_linear_weight, _linear_pointwise": lambda: torch.allclose(
            mkldnn._linear_pointwise(a, mkldnn._reorder_linear_weight(M, 16), c[0], "none", [None], ""),
            a @ M.T + c[0],
            atol=1e-4,
        ),
        "_reorder_linear_weight, _linear_pointwise.binary": lambda: torch.allclose(
            mkldnn._linear_pointwise.binary(a, c, mkldnn._reorder_linear_weight(M.t(), 16), None, "add"),
            c + a @ M,
            atol=1e-4,
        ),
        "_are_functorch_transforms_active": lambda: (
            not kernels.needs_plain_torch()
            and torch.func.vmap(lambda x: x + kernels.needs_plain_torch())(torch.zeros(2)).tolist() == [1, 1]
        ),
    }
    for name, check in checks.items():
        try:
            assert check()
        except Exception as error:
            pytest.fail(f"torch {torch.__version__} changed {name}, which src/models/kernels.py uses: {error!r}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_slice_of_the_weights_is_multiplied_as_fast_as_a_matrix_of_its_own(dtype):
    """oneDNN multiplies by a slice as it lies in a plain loop: 1.9 s instead of 0.5 ms, 2,500 rows and 128 units."""
    weight, x = torch.randn(384, 768).to(dtype), torch.randn(128, 16, 384).to(dtype)
    for U in (split(weight)[0], split(weight)[0].t()):
        own = U.contiguous()
        seconds = [min(timeit.repeat(lambda M=M: kernels.linear(x, M), number=1, repeat=3)) for M in (U, own)]
        assert seconds[0] < 20 * seconds[1]


def test_spending_the_gradients_memory_changes_no_number():
    x, weight, bias, h_0 = layer(7, 3)
    grads = []
    for spend in (False, True):
        below, _ = recurrence(x, weight, bias, h_0, spend_grad=spend)
        above, _ = recurrence(below, torch.cat([weight[:, :HIDDEN], weight[:, -HIDDEN:]], 1), bias)
        grads.append(torch.autograd.grad(above.sin().sum(), (x, weight, bias, h_0)))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize(("size", "dtype"), [(HIDDEN, F64), (640, torch.float32)], ids=["plain", "packed"])
def test_the_gradient_that_the_caller_gave_is_left_as_it_was(size, dtype):
    hidden, _ = recurrence(*layer(16, 8, hidden=size, dtype=dtype))
    pull = torch.ones_like(hidden)
    hidden.backward(pull)
    assert bool((pull == 1).all())


def test_an_id_without_a_column_is_refused():
    _, weight, bias, h_0 = layer(2, 1)
    with pytest.raises(IndexError, match="out of range"):
        recurrence(torch.tensor([[1], [5]]), weight, bias, h_0)
    with pytest.raises(IndexError, match="out of range"):
        kernels.forward_window(torch.full((9, 1), -1), weight.detach(), None, None, "tanh", False)
