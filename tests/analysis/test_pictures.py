"""The figures are good figures: titles, names on the axes, 800 pixels, every character of any text."""

import io
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
from src.diagnostics import drawing as figures
from src.diagnostics import drawing as pictures
from src.diagnostics import drawing as pictures_of_text
from src.diagnostics.confusions import ConfusionCounts
from src.diagnostics.drawing import drawable, label, labels, short, width
from src.diagnostics.loss_by_position import Positions
from src.diagnostics.recurrent_matrix import saturated

TEXT = "Speak, $5 & $6!\n\t你_^{} "  # dollars and braces would be mathematics, the Chinese may have no font


def lag_map() -> torch.Tensor:
    curve = 0.5 ** torch.arange(12.0)
    return torch.stack([torch.stack([curve, 2 * curve, curve * 0]) for _ in range(4)])


def counted() -> ConfusionCounts:
    symbols = sorted(set(TEXT))
    ids = torch.tensor([[symbols.index(char)] for char in TEXT])
    return ConfusionCounts.none(len(symbols)).plus(ids, ids.roll(1, 0), torch.ones(ids.shape))


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
    "five layers": lambda: pictures.gradient_by_lag([0], torch.rand(1, 5, 1), torch.rand(5, 1)),
    "one line": lambda: pictures_of_text.surprisal(10, "a", torch.rand(1), "val"),
    "no confusions": lambda: pictures_of_text.confusions(0, ConfusionCounts.none(3), "abc"),
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


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 3e38])
def test_a_network_that_has_diverged_is_drawn_and_nothing_raised(bad):
    v = torch.tensor([1.0, bad, -bad, 2.0])
    ids = torch.arange(4)[:, None]
    found = ConfusionCounts.none(4).plus(ids, ids * 0, v[:, None])
    for figure in (
        pictures.loss_by_position(3, v, v, (bad, bad)),
        pictures.gradient_by_lag([0, 3], torch.stack([v, v])[:, None], v[None]),
        pictures.eigenvalues(3, [torch.complex(v, v)], [torch.complex(v, v)], [(v, v)]),
        pictures.units_over_text(3, [v[:, None]], ["layer 0"], "abcd"),
        pictures_of_text.surprisal(3, "abcd", v, "val"),
        pictures_of_text.confusions(3, found, "abcd"),
    ):
        assert figures.png(figure)


def test_every_layer_has_its_eigenvalues_and_its_map():
    five = [torch.ones(3) + 0j] * 5
    titles = [
        axes.get_title(loc="left")
        for figure in (
            pictures.eigenvalues(3, five, five, [(torch.ones(3), torch.ones(3))] * 5),
            pictures.gradient_by_lag([0, 3], torch.rand(2, 5, 4), torch.rand(5, 4)),
        )
        for axes in figure.axes
    ]
    for layer in range(5):
        assert f"Layer {layer}: radius 1.000" in titles
        assert f"Layer {layer} over training" in titles


def test_a_window_of_one_step_is_drawn_as_points():
    figure = pictures.gradient_by_lag([0], torch.ones(1, 1, 1), torch.ones(1, 1))
    now, whole = figure.axes[:2]
    assert {line.get_marker() for axes in (now, whole) for line in axes.lines} == {"o"}
    for axes in (now, pictures.loss_by_position(3, torch.ones(1), torch.ones(1), (1.0, 1.0)).axes[0]):
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_figures_are_made_without_pyplot_which_would_keep_them_alive():
    FIGURES["surprisal"]()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_logarithmic_scale_leaves_out_zeros_and_what_is_not_finite():
    logs = figures.exponents([1.0, 0.0, 100.0, float("inf"), 1e-30])
    assert logs[[0, 2]].tolist() == [0.0, 2.0]
    assert all(value != value for value in logs[[1, 3, 4]])
    assert figures.decades_between(-3.2, 0.4) == [-3.0, -2.0, -1.0, 0.0]


def test_a_logarithmic_scale_of_less_than_two_decades_has_ticks_between_the_powers():
    places = figures.decades_between(-2.35, -0.9)
    assert [figures.power_of_ten(place) for place in places] == ["5e-3", "1e-2", "2e-2", "5e-2", "1e-1"]
    assert [figures.power_of_ten(place) for place in figures.decades_between(-0.66, -0.2)] == [
        "3e-1", "4e-1", "5e-1", "6e-1",
    ]  # fmt: skip
    assert [figures.power_of_ten(place) for place in figures.decades_between(-2.66, -2.61)] == ["2.2e-3", "2.5e-3"]
    assert figures.power_of_ten(308.5) == "3.2e308"


def test_eigenvalues_of_an_orthogonal_start_are_drawn_on_the_unit_circle():
    from src.diagnostics.recurrent_matrix import eigenvalues, singular_values

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
    found = ConfusionCounts.none(3).plus(targets, guesses, nats).plus(targets[:1], guesses[:1], nats[:1])
    assert dict(zip(found.pairs.tolist(), found.times.tolist(), strict=True)) == {0 * 3 + 0: 2, 1 * 3 + 0: 3}
    assert found.stood.tolist() == [2, 3, 0]
    assert found.hits() == 2
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
    for blank in "\ufe0f\u3164\u115f\u2800\U000e0100\u3000":
        assert label(blank) == f"U+{ord(blank):04X}"
    assert label("\u0e31") == "◌\u0e31"  # a vowel sign, though it does not combine by Unicode's book
    assert [short(symbol) for symbol in ("\u3000", "\\xff", "<unknown>", "a")] == ["3000", "\\xff", "<?>", "a"]


def test_a_character_that_no_font_has_is_written_as_its_code():
    assert drawable("\U0001f9ff → a") == "1F9FF → a"  # a newer sign than matplotlib's own fonts
    assert drawable("plain") == "plain"


@pytest.mark.parametrize("symbols", [["\\xe4", "\\xbd", "<unknown>"], ["\u3000", "你", "\U0001f9ff"]])
def test_wide_labels_of_confusions_stay_on_the_page(symbols):
    ids = torch.arange(3)[:, None]
    figure = pictures_of_text.confusions(
        1, ConfusionCounts.none(3).plus(ids, ids.roll(1, 0), torch.ones(3, 1)), symbols
    )
    longest = max(width(f"{short(a)} → {short(b)}", 8.5) for a in symbols for b in symbols if a != b)
    assert figure.axes[0].bbox.x0 >= longest


def test_confusions_of_a_large_vocabulary_take_no_square_of_it():
    ids = torch.arange(20_000)[:, None] % 9_000
    found = ConfusionCounts.none(9_000).plus(ids, ids.roll(1, 0), torch.ones(ids.shape))
    assert len(found.pairs) <= 20_000
    assert found.stood.sum() == 20_000


def test_values_a_few_roundings_apart_have_a_histogram(tmp_path):
    from src.diagnostics.tensorboard import RunTensorBoard

    values = np.nextafter(np.ones(50, np.float32), np.float32(2))
    values[::2] = 1
    RunTensorBoard(tmp_path).histogram("hidden/layer_0", values, 0)
