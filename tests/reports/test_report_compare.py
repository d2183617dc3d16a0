"""A paired comparison: which runs are pairs, the figures by hand, and what is said in words."""

import itertools
import json
import math

import pytest
from fabricated import NATS, fabricate
from scipy import stats

from src import report as command
from src.errors import UserError
from src.reports.compare import compare, compare_two, resolve_key
from src.reports.formatting import sections, to_markdown, to_text
from src.reports.runs import find_runs
from src.reports.table import Metric, build


def compared(root, key="model", metric=NATS, ignored=()):
    runs = find_runs([str(root)])
    report = build(runs, metric, ignored, kept=[resolve_key(key, runs)])
    return sections(report, [resolve_key(key, runs)]), *compare(report.tables[0], resolve_key(key, runs), metric)


def two_models(root, manual, cell, **settings):
    for name, values in (("manual", manual), ("cell", cell)):
        for seed, value in values.items():
            folder = root / f"{name}{seed}{'_'.join(map(str, settings.values()))}"
            fabricate(folder, value, seed=seed, model=name, **settings)


def test_difference_interval_and_p_are_those_of_a_hand_computation(tmp_path):
    # The seeds move both models alike: unpaired, 1.1 +- 0.5 against 1.3 +- 0.5 would tell nothing.
    two_models(tmp_path, {0: 0.6, 1: 1.1, 2: 1.6}, {0: 0.7, 1: 1.3, 2: 1.9})
    content, (one,), alone = compared(tmp_path)
    assert (one.first, one.second, one.difference.n) == ("manual", "cell", 3)
    assert one.difference.mean == pytest.approx(-0.2)  # differences -0.1, -0.2, -0.3: sd 0.1
    assert one.difference.high == pytest.approx(-0.2 + 4.302653 * 0.1 / math.sqrt(3))
    assert one.difference.p == pytest.approx(1 - math.sqrt(12 / 14))  # t = 2 sqrt 3, p = 1 - t / sqrt(2 + t^2) = 0.0742
    assert one.p_holm == one.difference.p  # a single test needs no adjustment
    assert one.difference.effect == pytest.approx(-2.0)
    assert one.verdict("min").startswith("not more than noise: 3 seeds")
    assert alone == []
    # -0.2 -+ 4.303 * 0.1 / sqrt 3 = -0.4484 and 0.0484
    told = "in a sentence: val/cross_entropy of model manual was 0.2000 nats a character lower than of model cell "
    told += "(95 % interval of the difference -0.4484 to 0.0484; paired t test, n = 3 seeds, p = 0.074; d = -2.00)."
    assert told in to_text(content)


def test_a_difference_beyond_noise_is_called_one_and_says_who_is_better(tmp_path):
    two_models(tmp_path, {0: 1.0, 1: 1.1, 2: 1.2}, {0: 1.2, 1: 1.3, 2: 1.41})
    _, items, _ = compared(tmp_path)
    assert items[0].verdict("min") == "more than noise: manual is better"
    runs = find_runs([str(tmp_path)])
    accuracy = Metric("val/cross_entropy", mode="max")  # the same figures, were higher better
    (table,) = build(runs, accuracy, kept=["model"]).tables
    assert compare(table, "model", accuracy)[0][0].verdict("max") == "more than noise: cell is better"


@pytest.mark.parametrize(
    ("manual", "cell", "told"),
    [
        ({0: 1.0}, {0: 1.2}, "run more seeds"),
        ({0: 1.0, 1: 1.1}, {0: 1.0 + 3e-7, 1: 1.1 + 3e-7}, "the same to 6 digits in every pair"),
    ],
)
def test_one_pair_is_not_a_comparison_and_equal_numbers_are_called_equal(tmp_path, manual, cell, told):
    two_models(tmp_path, manual, cell)
    _, items, _ = compared(tmp_path)
    assert told in items[0].verdict("min")


def test_only_equal_seeds_are_pairs_and_the_others_are_named(tmp_path):
    two_models(tmp_path, {0: 1.0, 1: 1.1, 7: 1.2}, {0: 1.2, 1: 1.3, 8: 1.41})
    content, items, alone = compared(tmp_path)
    assert items[0].difference.n == 2
    assert sorted(run.seed for run in alone) == [7, 8]
    for shown in (to_text(content), to_markdown(None, content, "")):
        assert "without a partner of equal seed and settings: 2" in shown
        assert "manual7" in shown


def test_pairs_have_equal_other_settings_and_a_mean_difference_does_not_hide_opposite_signs(tmp_path):
    two_models(tmp_path, {0: 1.0, 1: 1.1}, {0: 1.2, 1: 1.4}, hidden_size=64)
    two_models(tmp_path, {0: 1.3, 1: 1.4}, {0: 1.2, 1: 1.1}, hidden_size=128)
    content, items, _ = compared(tmp_path)
    found, of_seeds = items[0].difference, [(-0.2 + 0.1) / 2, (-0.3 + 0.3) / 2]  # the pairs of a seed are one sample
    assert (found.n, found.mean) == (2, pytest.approx(-0.025))
    assert found.p == pytest.approx(stats.ttest_1samp(of_seeds, 0).pvalue)
    assert items[0].verdict("min").endswith("; cell is better at hidden_size 128")
    assert "cell is better at hidden_size 128" in to_text(content)
    items[0].p_holm = 0.01
    assert items[0].verdict("min") == "more than noise: manual is better on average; cell is better at hidden_size 128"


def test_without_equal_other_settings_there_is_no_pair_and_the_reason_is_told(tmp_path):
    fabricate(tmp_path / "a", model="manual", lr=0.1)
    fabricate(tmp_path / "b", model="cell", lr=0.2)
    content, items, _ = compared(tmp_path)
    told = "also different: optimizer.lr (--ignore optimizer.lr lets it differ)"
    assert told in items[0].verdict("min")
    assert told in to_text(content)
    _, items, _ = compared(tmp_path, ignored=["optimizer.lr"])
    assert items[0].difference.n == 1


@pytest.mark.parametrize("settings", [{"model": "lstm"}, {"model": "cell", "single_bias": True}])
def test_a_setting_that_one_side_does_not_use_does_not_part_a_pair(tmp_path, settings):
    # an lstm has no nonlinearity, and manual, whose configuration says single_bias=false, has one bias in any case
    for seed in range(3):
        for lr, shift in ((0.1, 0), (0.2, 1)):
            fabricate(tmp_path / f"a{seed}{lr}", 1.5 + shift, seed=seed, model="manual", lr=lr)
            fabricate(tmp_path / f"b{seed}{lr}", 1.4 + shift + seed / 100, seed=seed, lr=lr, **settings)
    _, items, _ = compared(tmp_path)
    assert items[0].difference.n == 3
    (table,) = build(find_runs(tmp_path), NATS, kept=["model"]).tables
    items, alone = compare_two(table, ["model", "optimizer.lr"], NATS)
    assert [one.difference.n for one in items] == [3] * 5
    assert (items[-1].depends_on, items[-1].verdict("min")) == ("lr", "the same to 6 digits in every pair")
    assert alone == []


def test_several_comparisons_allow_for_their_number(tmp_path):
    for name, shift in (("cell", 0.0), ("stacked", 0.1), ("manual", 0.2)):
        for seed in range(3):
            fabricate(tmp_path / f"{name}{seed}", 1 + shift + 0.012 * seed * shift * 10, seed=seed, model=name)
    content, items, _ = compared(tmp_path)
    assert [f"{one.first} {one.second}" for one in items] == ["cell stacked", "cell manual", "stacked manual"]
    assert all(one.tests == 3 and one.p_holm >= one.difference.p for one in items)
    assert "p (Holm)" in to_text(content)
    for name, seed in itertools.product("abcd", range(3)):  # of seven, the best is chosen from 21 pairs
        fabricate(tmp_path / f"{name}{seed}", 2 + ord(name) + seed / 100, seed=seed, model=name)
    assert [one.tests for one in compared(tmp_path)[1]] == [21] * 21


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("seed", "paired by their seed"),
        ("optimizer.lr", "all runs have optimizer.lr = 0.002; what differs: data, model, data.length, model.h"),
        ("data", "each text has its own table"),
        ("length", "numbers of different texts"),  # data.length; callbacks.text_samples.length is the same in all runs
    ],
)
def test_a_key_that_cannot_be_compared_is_answered(tmp_path, key, told):
    fabricate(tmp_path / "a", hidden_size=64, model="cell")
    fabricate(tmp_path / "b", hidden_size=128, data="names", **{"data.length": 9})
    with pytest.raises(UserError, match=told):
        resolve_key(key, find_runs([str(tmp_path)]))


def test_two_keys_are_compared_at_each_value_of_the_other_and_so_is_how_they_depend_on_one_another(tmp_path):
    means = {("torch", 1.0): 1.5, ("orthogonal", 1.0): 1.4, ("torch", None): 1.6, ("orthogonal", None): 1.7}
    noise = (0.0, 0.001, 0.003)  # of one of the four, so that there is a spread
    for (init, clip), mean in means.items():
        for seed, lr in itertools.product(range(3), (0.1, 0.2)):  # two settings of a seed are one sample
            value = mean + seed / 10 + noise[seed] * (init == "torch" and clip is None)
            fabricate(tmp_path / f"{init}{clip}{seed}{lr}", value, seed=seed, init=init, gradient_clip_val=clip, lr=lr)
    shown = command.report(["--compare", "init", "gradient_clip_val", "--json", f"{tmp_path}/t.json", str(tmp_path)])
    (table,) = json.loads((tmp_path / "t.json").read_text())["tables"]
    found = {(one["first"], one["second"]): one["difference"] for one in table["compared"]}
    at = "gradient_clip_val"
    one = found[f"init orthogonal at {at} 1", f"init torch at {at} 1"]
    assert (one["mean"], one["n"]) == (pytest.approx(-0.1), 3)
    both = found[f"init orthogonal - torch at {at} 1", f"init orthogonal - torch at {at} null"]
    # (1.4 - 1.5) - (1.7 - 1.6 - noise), whose mean is -0.2 + 0.004 / 3
    assert both["mean"] == pytest.approx(-0.2 + 0.004 / 3)
    assert both["sd"] == pytest.approx(math.sqrt(sum((x - 0.004 / 3) ** 2 for x in noise) / 2))
    assert f"the difference depends on {at}" in shown
    assert all(one["tests"] == 5 for one in table["compared"])  # Holm over all of them
    assert [run["seed"] for run in table["rows"][0]["runs"]] == [0, 1, 2]
    assert command.report([str(tmp_path), "--last", "2"]).startswith("2 runs: ")


def test_a_comparison_says_that_its_sides_were_not_trained_equally_long(tmp_path):
    for seed in range(3):
        fabricate(tmp_path / f"short{seed}", 1.5 + seed / 100, seed=seed, seq_len=16, curve=[(630, 1.5)])
        fabricate(tmp_path / f"long{seed}", 1.8 + seed / 50, seed=seed, seq_len=64, curve=[(158, 1.8)])
    content, items, _ = compared(tmp_path, "seq_len")
    told = "more than noise: 16 is better; but 16 was trained for 630 steps, the other for 158"
    assert items[0].verdict("min") == told
    assert "), trained for 630 steps, the other for 158." in to_text(content)
