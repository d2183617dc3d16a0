"""The figures are good figures: titles, names on the axes, 800 pixels, every character of any text."""

import io
import sys

import pytest
import torch

pytest.importorskip("matplotlib")
from src.analysis import figures, pictures, pictures_of_text
from src.analysis.confusions import Confusions
from src.analysis.labels import label, labels, one_column
from src.analysis.positions import Positions
from src.analysis.saturation import saturated

TEXT = "Speak, $5 & $6!\n\t你_^{} "  # dollars and braces would be mathematics, the Chinese may have no font


def lag_map() -> torch.Tensor:
    curve = 0.5 ** torch.arange(12.0)
    return torch.stack([torch.stack([curve, 2 * curve, curve * 0]) for _ in range(4)])


def counted() -> Confusions:
    symbols = sorted(set(TEXT))
    ids = torch.tensor([[symbols.index(char)] for char in TEXT])
    return Confusions.none(len(symbols)).plus(ids, ids.roll(1, 0), torch.ones(ids.shape))


FIGURES = {
    "loss_by_position": lambda: pictures.loss_by_position(12_345, torch.ones(9), torch.ones(9) * 2, (1.0, 2.0)),
    "gradient_by_lag": lambda: pictures.gradient_by_lag([0, 5, 10, 15], lag_map(), lag_map()[0], "words"),
    "one point, nothing finite": lambda: pictures.gradient_by_lag(
        [0], torch.full((1, 1, 5), torch.nan), torch.full((1, 5), torch.inf)
    ),
    "eigenvalues": lambda: pictures.eigenvalues(
        10, [torch.tensor([1j, -1j])], [torch.tensor([0.5 + 0j, 0j])], [(torch.ones(2), torch.ones(2))]
    ),
    "units_over_text": lambda: pictures.units_over_text(
        10, [torch.rand(len(TEXT), 70), torch.rand(len(TEXT), 3)], ["layer 0", "layer 1"], labels(TEXT)
    ),
    "surprisal": lambda: pictures_of_text.surprisal(10, TEXT * 5, torch.rand(5 * len(TEXT)), "val"),
    "confusions": lambda: pictures_of_text.confusions(10, counted(), sorted(set(TEXT))),
    "no confusions": lambda: pictures_of_text.confusions(0, Confusions.none(3), "abc"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_shows_names_its_axes_and_is_800_pixels_wide(name):
    from PIL import Image

    figure = FIGURES[name]()
    (title, *_) = [text.get_text() for text in figure.texts]
    assert "after " in title
    for axes in figure.axes:
        named = [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
        assert any(named), "an axes without a word"
    picture = Image.open(io.BytesIO(figures.png(figure)))
    assert picture.size[0] == 800
    assert picture.size[1] <= 800
    assert len(set(picture.convert("L").resize((80, 40)).tobytes())) > 5  # not an empty page
    assert figure.axes == []  # let go


def test_figures_are_made_without_pyplot_which_would_keep_them_alive():
    FIGURES["surprisal"]()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_logarithmic_scale_leaves_out_zeros_and_what_is_not_finite():
    logs = figures.exponents([1.0, 0.0, 100.0, float("inf"), 1e-30])
    assert logs[[0, 2]].tolist() == [0.0, 2.0]
    assert all(value != value for value in logs[[1, 3, 4]])
    assert figures.decades_between(-3.2, 0.4) == [-3.0, -2.0, -1.0, 0.0]


def test_eigenvalues_of_an_orthogonal_start_are_drawn_on_the_unit_circle():
    from src.analysis.spectrum import eigenvalues, singular_values

    torch.manual_seed(0)
    W = torch.nn.init.orthogonal_(torch.empty(16, 16))
    values = eigenvalues(W)
    figure = pictures.eigenvalues(0, [values], [values], [(singular_values(W), singular_values(W))])
    circle, first, now = figure.axes[0].lines
    for points in (circle, first, now):
        x, y = (torch.as_tensor(part) for part in points.get_data())
        assert (x**2 + y**2) == pytest.approx(torch.ones(len(x)), abs=1e-4)


def test_the_slowest_unit_stands_at_the_top():
    time = torch.arange(50.0)
    slow, fast = torch.sin(time / 20), torch.cos(time * 3)
    assert pictures.slowest_first(torch.stack([fast, slow], 1)).tolist() == [1, 0]


# --- what is counted -------------------------------------------------------------------------------------------------


def test_confusions_are_counted_by_true_and_predicted_character():
    targets = torch.tensor([[0, 1], [1, -100]])
    guesses = torch.tensor([[0, 0], [0, 2]])
    nats = torch.tensor([[1.0, 2.0], [4.0, 9.0]])
    found = Confusions.none(3).plus(targets, guesses, nats).plus(targets[:1], guesses[:1], nats[:1])
    assert found.counts.tolist() == [[2, 0, 0], [3, 0, 0], [0, 0, 0]]
    assert found.worst(5) == [(1, 0, 3)]
    assert found.per_character()[:2].tolist() == [1.0, 8 / 3]
    assert found.per_character()[2].isnan()  # never stood


def test_losses_by_position_are_summed_first_and_divided_once_also_over_a_short_window():
    real = torch.tensor([[True, True], [True, False]])
    found = Positions.none().plus(torch.tensor([[1.0, 3.0], [5.0, 0.0]]), real)
    found = found.plus(torch.tensor([[8.0, 0.0]]), torch.tensor([[True, True]]))
    assert found.mean().tolist() == [3.0, 5.0]
    assert found.overall() == 17 / 5


def test_saturation_is_the_share_beyond_99_hundredths_by_layer():
    state = torch.tensor([[[0.995, -0.995], [0.5, 0.99]], [[0.0, 0.0], [0.0, 1.0]]])
    assert saturated(state).tolist() == [0.5, 0.25]


def test_every_label_has_ink():
    assert labels(" \n\ta你") == ["␣", "↵", "⇥", "a", "你"]
    assert label("\x07") == "U+0007"
    assert label("\u0301") == "◌\u0301"
    assert label("\\xff") == "\\xff"
    assert all(len(one_column(symbol)) == 1 for symbol in (" ", "\x07", "\\xff", "a"))
