"""The spectral radius and the eigenvalues of W, against matrices whose answer a reader can do in the head."""

import math
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from src.config.schema import DiagnosticConfig
from src.diagnostics.recurrence import RecurrentScalars, saturated, spectral_radius, spectrum


def turned(radius: float, angle: float = 0.7) -> torch.Tensor:
    """A rotation times a length: both eigenvalues have that modulus, and no real direction is kept."""
    c, s = radius * math.cos(angle), radius * math.sin(angle)
    return torch.tensor([[c, -s], [s, c]])


@pytest.mark.parametrize(
    ("W", "radius"),
    [
        (torch.diag(torch.tensor([0.3, -0.9, 0.5])), 0.9),
        (turned(2.0), 2.0),
        (torch.tensor([[0.5, 100.0], [0.0, 0.3]]), 0.5),  # one step may multiply by 100, the long run halves
        (torch.tensor([[0.0, 1.0], [0.0, 0.0]]), 0.0),  # W^2 = 0
        (torch.zeros(3, 3), 0.0),
    ],
)
def test_the_spectral_radius_of_a_known_matrix(W, radius):
    assert spectral_radius(W) == pytest.approx(radius, abs=1e-6)


@pytest.mark.parametrize("size", [1, 3, 17, 128])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_spectral_radius_is_the_largest_eigenvalue(size, scale):
    W = scale * torch.randn(size, size, generator=torch.Generator().manual_seed(size)) / math.sqrt(size)
    assert spectral_radius(W) == pytest.approx(float(spectrum(W)[0][0].abs()), rel=3e-4)


def test_an_orthogonal_matrix_has_every_eigenvalue_on_the_unit_circle_and_every_singular_value_one():
    torch.manual_seed(0)
    W = torch.nn.init.orthogonal_(torch.empty(64, 64))
    for values in spectrum(W):
        assert values.abs() == pytest.approx(torch.ones(64), abs=1e-5)
    assert spectral_radius(W) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_matrix_that_is_no_longer_finite_has_no_spectrum_and_raises_nothing(bad):
    W = torch.tensor([[1.0, bad], [0.0, 1.0]])
    assert math.isnan(spectral_radius(W))
    assert [values.isnan().tolist() for values in spectrum(W)] == [[True, True], [True, True]]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_overflow_nor_vanish(scale):
    assert spectral_radius(scale * torch.eye(3)) == pytest.approx(scale, rel=1e-5)


def test_half_precision_is_widened_before_lapack_sees_it():
    W = torch.diag(torch.tensor([0.5, 2.0])).to(torch.bfloat16)
    assert spectrum(W)[0].abs().tolist() == [2.0, 0.5]
    assert spectral_radius(W) == pytest.approx(2.0)


def test_a_relu_is_not_saturated_where_it_is_large():
    recurrence = SimpleNamespace(f=torch.relu, layers=[SimpleNamespace(W=torch.eye(2))])
    with patch("src.diagnostics.recurrence.plain", lambda view: recurrence):
        found = RecurrentScalars(DiagnosticConfig()).look(SimpleNamespace())
    assert found == {"recurrent/spectral_radius/layer_0": pytest.approx(1)}


def test_saturation_is_the_share_beyond_99_hundredths_by_layer():
    state = torch.tensor([[[0.995, -0.995], [0.5, 0.99]], [[0.0, 0.0], [0.0, 1.0]]])
    assert saturated(state).tolist() == [0.5, 0.25]
