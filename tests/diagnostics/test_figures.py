"""The figures are good figures: titles, names on the axes, 800 pixels, every character of any text."""

import io

import numpy as np
import pytest
import torch

from src.data.vocabulary import label
from src.diagnostics import drawing
from src.diagnostics.diagnostic import Reading
from src.diagnostics.drawing import png, short
from src.diagnostics.gradient_flow import gradient_by_lag
from src.diagnostics.recurrence import spectrum_figure, units_over_text
from src.diagnostics.text import confusions, count_confusions, loss_by_position, mean, sums_by_position, surprisal

TEXT = "Speak, $5 & $6!\n\t你_^{} "  # dollars and braces would be mathematics, the Chinese may have no font


@pytest.fixture(autouse=True)
def style():
    with drawing.styled():
        yield


def lag_map() -> torch.Tensor:
    curve = 0.5 ** torch.arange(12.0)
    return torch.stack([torch.stack([curve, 2 * curve, curve * 0]) for _ in range(4)])


def positions(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return values.double(), torch.ones(len(values), dtype=torch.float64)


def shifted(size: int) -> list[Reading]:
    """Each of `size` characters once, taken for the one before it."""
    ids = torch.arange(size)[:, None]
    return [Reading(ids, ids.roll(1, 0), torch.ones(size, 1))]


def layers(values: torch.Tensor, count: int = 1) -> list[list[torch.Tensor]]:
    return [[values + 0j, values]] * count


FIGURES = {
    "loss_by_position": lambda: loss_by_position(12_345, positions(torch.ones(9)), positions(torch.ones(9) * 2)),
    "gradient_by_lag": lambda: gradient_by_lag([0, 5, 10, 15], lag_map(), lag_map()[0], "a verdict"),
    "one point, nothing finite": lambda: gradient_by_lag(
        [0], torch.full((1, 1, 5), torch.nan), torch.full((1, 5), torch.inf)
    ),
    "five layers": lambda: gradient_by_lag([0], torch.rand(1, 5, 1), torch.rand(5, 1)),
    "eigenvalues": lambda: spectrum_figure(10, layers(torch.ones(2)), layers(torch.zeros(2))),
    "units_over_text": lambda: units_over_text(
        10, {"layer 0": torch.rand(len(TEXT), 70), "layer 1": torch.rand(len(TEXT), 3)}, [short(c) for c in TEXT]
    ),
    "surprisal": lambda: surprisal(10, TEXT * 5, torch.rand(5 * len(TEXT)), "val"),
    "one line": lambda: surprisal(10, "a", torch.rand(1), "val"),
    "confusions": lambda: confusions(10, shifted(len(TEXT)), TEXT),
    "no confusions": lambda: confusions(0, [Reading(*torch.zeros(3, 0, 1, dtype=torch.int64))], "abc"),
    "wide labels": lambda: confusions(0, shifted(4), ["\\xe4", "<unknown>", "\u3000", "\U0001f9ff"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_says_what_it_shows_names_its_axes_and_is_800_pixels_wide(name):
    from matplotlib import rcParams
    from PIL import Image

    settings = dict(rcParams)
    figure = FIGURES[name]()
    (title, *_) = [text.get_text() for text in figure.texts]
    assert "after " in title
    for axes in figure.axes:
        named = [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
        assert any(named), "an axes without a word"
    picture = Image.open(io.BytesIO(png(figure)))
    assert picture.size[0] == 800
    assert picture.size[1] <= 800
    assert len(set(picture.convert("L").resize((80, 40)).tobytes())) > 5  # not an empty page
    assert figure.axes == []  # let go
    assert dict(rcParams) == settings  # a notebook's own


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 3e38])
def test_a_network_that_has_diverged_is_drawn_and_nothing_raised(bad):
    v = torch.tensor([1.0, bad, -bad, 2.0])
    ids = torch.arange(4)[:, None]
    for figure in (
        loss_by_position(3, positions(v), positions(v)),
        gradient_by_lag([0, 3], torch.stack([v, v])[:, None], v[None]),
        spectrum_figure(3, layers(v), layers(v)),
        units_over_text(3, {"layer 0": v[:, None]}, "abcd"),
        surprisal(3, "abcd", v, "val"),
        confusions(3, [Reading(ids, ids * 0, v[:, None])], "abcd"),
    ):
        assert png(figure)


def test_a_logarithmic_scale_leaves_out_zeros_and_what_is_not_finite_or_far_below():
    values = drawing.positive([1.0, 0.0, 100.0, float("inf"), 1e-30])
    assert values[[0, 2]].tolist() == [1.0, 100.0]
    assert np.isnan(values[[1, 3, 4]]).all()


def test_confusions_are_counted_by_true_and_predicted_character():
    targets = torch.tensor([[0, 1], [1, -100], [0, 1]])
    guesses = torch.tensor([[0, 0], [0, 2], [0, 0]])
    nats = torch.tensor([[1.0, 2.0], [4.0, 9.0], [1.0, 2.0]])
    pairs, times, costs, occurrences = count_confusions([Reading(targets, guesses, nats)], 3)
    assert (pairs.tolist(), times.tolist()) == ([[1, 0], [0, 0]], [3, 2])
    assert (costs.tolist(), occurrences.tolist()) == ([2.0, 8.0, 0.0], [2, 3, 0])


def test_losses_by_position_are_summed_first_and_divided_once_also_over_a_short_window():
    long = Reading(torch.tensor([[0, 0], [0, -100]]), torch.zeros(2, 2), torch.tensor([[1.0, 3.0], [5.0, 0.0]]))
    short_window = Reading(torch.tensor([[0, 0]]), torch.zeros(1, 2), torch.tensor([[8.0, 0.0]]))
    nats, characters = sums_by_position([long, short_window])
    assert (nats.tolist(), characters.tolist()) == ([12.0, 5.0], [4.0, 1.0])
    assert mean(nats, characters) == 17 / 5


def test_every_label_has_ink():
    assert [label(symbol) for symbol in " \n\ta你"] == ["␣", "↵", "⇥", "a", "你"]
    assert label("\x07") == "U+0007"
    assert label("\u0301") == "◌\u0301"
    assert label("\\xff") == "\\xff"
    assert label("\u3000") == "U+3000"
    assert label("\u0e31") == "◌\u0e31"  # a vowel sign, though it does not combine by Unicode's book
    assert [short(symbol) for symbol in ("\u3000", "\\xff", "<unknown>", "a")] == ["3000", "\\xff", "<?>", "a"]


def test_a_character_that_no_font_has_is_written_as_its_number():
    assert short("\U0001f9ff") == "1F9FF"  # a newer sign than matplotlib's own fonts
    assert short("你") in ("你", "4F60")
