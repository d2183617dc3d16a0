"""Runs become rows: grouped by what differs, seeds folded, baselines beside them, best first, nothing dropped."""

import csv
import io
import math

import pytest
from fabricated import CONFIG, fabricate

from src.reports import metric as metrics
from src.reports import sheet, text
from src.reports.metric import Metric
from src.reports.runs import find_runs
from src.reports.table import build

# Student's 95 % quantiles of one and two degrees of freedom, which can be solved by hand
T_OF_1 = math.tan(0.95 * math.pi / 2)
T_OF_2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))
NATS = Metric("val/cross_entropy")


def table_of(root, metric=NATS, **options):
    return build(find_runs([str(root)]), metric, **options)


def runs_of(table):
    return [row for row in table.rows if row.group is not None]


def test_seeds_are_folded_and_the_figures_are_those_of_a_hand_computation(tmp_path):
    for seed, value in enumerate((1.0, 1.2, 1.4)):
        fabricate(tmp_path / f"manual{seed}", value, seed=seed, model="manual", record={"seconds": 10.0 + seed})
    for seed, value in enumerate((0.5, 1.5)):
        fabricate(tmp_path / f"cell{seed}", value, seed=seed, model="cell")
    table = table_of(tmp_path)
    cell, manual = runs_of(table)
    assert table.columns == ["model"]
    assert (cell.settings["model"], manual.settings["model"]) == ("cell", "manual")  # 1.0 before 1.2: best first
    half = T_OF_2 * 0.2 / math.sqrt(3)
    assert manual.summary.mean == pytest.approx(1.2)
    assert manual.summary.sd == pytest.approx(0.2)
    assert (manual.summary.low, manual.summary.high) == (pytest.approx(1.2 - half), pytest.approx(1.2 + half))
    assert manual.summary.n == 3
    assert manual.seconds == pytest.approx(11.0)
    assert cell.summary.sd == pytest.approx(math.sqrt(0.5))
    assert cell.summary.high == pytest.approx(1.0 + T_OF_1 * math.sqrt(0.5) / math.sqrt(2))


def test_what_cannot_matter_makes_no_row_of_its_own(tmp_path):
    for seed in range(3):
        fabricate(tmp_path / f"sweep{seed}" / "run", seed=seed, log_every_n_steps=10 + seed, threads=seed + 1)
    table = table_of(tmp_path)
    assert len(runs_of(table)) == 1
    assert runs_of(table)[0].summary.n == 3
    assert table.columns == []
    assert not table.left_out


def test_a_second_key_that_follows_the_seed_is_the_seed(tmp_path):
    for seed in (3, 4):
        text_of_config = CONFIG.format(
            seed=seed,
            runs="r",
            hidden_size=8,
            nonlinearity="",
            model="gru",
            lr=0.1,
            threads=1,
            log_every_n_steps=1,
            data="x",
        )
        config = text_of_config.replace("  evaluation_streams: 20\n", f"  evaluation_streams: 20\n  seed: {seed}\n")
        fabricate(tmp_path / str(seed), seed=seed, model="gru", config=config)
    assert [row.summary.n for row in runs_of(table_of(tmp_path))] == [2]


def test_baselines_stand_between_the_runs_in_the_metrics_unit(tmp_path):
    fabricate(tmp_path / "good", 1.5)
    fabricate(tmp_path / "bad", 1.9, model="cell")
    names = [row.name or row.settings["model"] for row in table_of(tmp_path).rows]
    # 2.4, 4.8 and 6 bits are 1.66, 3.33 and 4.16 nats
    assert names == ["manual", "5-gram", "cell", "unigram", "uniform guess (chance)"]
    values = {row.name: row.summary.mean for row in table_of(tmp_path).rows}
    assert values["5-gram"] == pytest.approx(2.4 * math.log(2))
    in_bits = table_of(tmp_path, Metric("val/bits_per_character"))
    assert [row.summary.mean for row in in_bits.rows if row.name == "uniform guess (chance)"] == [6.0]
    accuracy = table_of(tmp_path, Metric("val/accuracy", mode="max"))
    assert [(row.name, row.summary.mean) for row in accuracy.rows if row.group is None] == [
        ("uniform guess (chance)", 1 / 64)
    ]


def test_two_texts_have_their_baselines_each_with_its_name(tmp_path):
    fabricate(tmp_path / "a", data="names", baselines={"uniform": 4.75})
    fabricate(tmp_path / "b", data="enwik8", baselines={"uniform": 7.0})
    chance = [row for row in table_of(tmp_path).rows if row.group is None]
    assert [(row.settings["data"], round(row.summary.mean / math.log(2), 6)) for row in chance] == [
        ("names", 4.75),
        ("enwik8", 7.0),
    ]


def test_higher_is_better_for_accuracy(tmp_path):
    for name, accuracy in (("low", 0.3), ("high", 0.6)):
        fabricate(tmp_path / name, model=name, record={"metrics": {"final": {"val/accuracy": accuracy}}})
    runs = find_runs([str(tmp_path)])
    table = build(runs, metrics.resolve("accuracy", None, None, runs))
    assert [row.settings["model"] for row in runs_of(table)] == ["high", "low"]


def test_what_another_choice_brings_along_is_told_below_the_table(tmp_path):
    fabricate(tmp_path / "a", model="manual")
    fabricate(tmp_path / "b", model="lstm")  # has no nonlinearity
    table = table_of(tmp_path)
    assert table.columns == ["model"]
    assert table.with_others == {"model.nonlinearity": "model"}
    assert "model.nonlinearity (tanh | -)" in text.render(table)


def test_a_sweep_of_two_keys_has_two_columns_and_the_csv_their_full_names(tmp_path):
    for hidden in (64, 128):
        for rate in (0.1, 0.01):
            fabricate(tmp_path / f"{hidden}_{rate}", 1 + rate + hidden / 1000, hidden_size=hidden, lr=rate)
    table = table_of(tmp_path)
    assert table.columns == ["model.hidden_size", "optimizer.lr"]
    assert text.render(table).splitlines()[4].split()[:5] == ["#", "hidden_size", "lr", "mean", "sd"]
    lines = list(csv.DictReader(io.StringIO(sheet.render(table))))
    assert [(line["model.hidden_size"], line["optimizer.lr"], round(float(line["mean"]), 9)) for line in lines[:4]] == [
        ("64", "0.01", 1.074),
        ("128", "0.01", 1.138),
        ("64", "0.1", 1.164),
        ("128", "0.1", 1.228),
    ]


def test_an_ignored_setting_makes_no_row(tmp_path):
    fabricate(tmp_path / "a", 1.0, hidden_size=64, seed=0)
    fabricate(tmp_path / "b", 2.0, hidden_size=128, seed=1)
    (row,) = runs_of(table_of(tmp_path, ignored=["model.hidden_size"]))
    assert (row.summary.mean, row.summary.n) == (1.5, 2)


def test_many_settings_that_follow_from_one_are_one_column(tmp_path):
    fabricate(tmp_path / "a", data="names", hidden_size=4, lr=0.1, model="cell", record={"experiment": "first"})
    fabricate(tmp_path / "b", data="enwik8", hidden_size=64, lr=0.2, model="gru")  # no experiment, no nonlinearity
    table = table_of(tmp_path)
    assert table.columns == ["data"]
    followers = {"experiment", "model", "model.hidden_size", "model.nonlinearity", "optimizer.lr"}
    assert set(table.with_others) == followers
    shown = text.render(table)
    assert "with data also change: " in shown
    assert "optimizer.lr (0.1 | 0.2)" in shown


def test_independent_settings_stay_columns_however_many_they_are(tmp_path):
    for i in range(12):  # as a random search leaves them: every rate its own
        fabricate(
            tmp_path / str(i), 1.5 + i / 10, model=("cell", "manual")[i % 2], data=("names", "text8")[i // 6],
            hidden_size=10 + i, lr=0.1 / (i + 1), nonlinearity=("tanh", "relu")[i % 3 % 2],
            record={"experiment": "ab"[i % 5 % 2]},
        )  # fmt: skip
    table = table_of(tmp_path)
    assert {"model", "data", "model.hidden_size", "optimizer.lr", "model.nonlinearity"} <= set(table.columns)
    assert table.with_others == {}
