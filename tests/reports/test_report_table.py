"""Runs become rows: grouped by what differs, seeds folded, baselines beside them, best first, nothing dropped."""

import csv
import io
import itertools
import math

import pytest
from fabricated import fabricate, report_of, runs_of

from src.reports.formatting import sections, to_csv, to_latex, to_text
from src.reports.table import Metric, unequal_costs

# Student's 95 % quantiles of one and two degrees of freedom, which can be solved by hand
T_OF_1 = math.tan(0.95 * math.pi / 2)
T_OF_2 = 0.95 * math.sqrt(2 / (1 - 0.95**2))


def table_of(root, *metric, **options):
    (table,) = report_of(root, *metric, **options).tables
    return table


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
    assert manual.costs["seconds"] == pytest.approx(11.0)
    assert cell.summary.sd == pytest.approx(math.sqrt(0.5))
    assert cell.summary.high == pytest.approx(1.0 + T_OF_1 * math.sqrt(0.5) / math.sqrt(2))


def test_what_cannot_matter_makes_no_row_of_its_own(tmp_path):
    for seed in range(3):
        fabricate(tmp_path / f"sweep{seed}" / "run", seed=seed, log_every_n_steps=10 + seed, detect_anomaly=seed == 1)
    table = table_of(tmp_path)
    assert [row.summary.n for row in runs_of(table)] == [3]
    assert table.columns == []
    assert not report_of(tmp_path).left_out


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("val_check_interval", (1.0, 0.25)),
        ("check_val_every_n_epoch", (1, 2)),
        ("threads", ("1", "2")),
        ("patience", (2, 3)),
        ("init_from", (None, "a.ckpt")),
    ],
)
def test_whatever_can_change_a_result_makes_a_row_of_its_own(tmp_path, key, values):
    for i, value in enumerate(values):
        fabricate(tmp_path / str(i), **{key: value})
    report = report_of(tmp_path)
    assert len(runs_of(report.tables[0])) == 2
    assert not report.left_out


def test_files_of_one_name_but_other_content_are_different_texts(tmp_path):
    for i, sha256 in enumerate(("aa", "bb")):
        fabricate(tmp_path / str(i), seed=i, record={"data_provenance": {"sha256": sha256}})
    assert [table.text for table in report_of(tmp_path).tables] == ["sha256 aa", "sha256 bb"]


def test_baselines_stand_between_the_runs_in_the_metrics_unit(tmp_path):
    fabricate(tmp_path / "good", 1.5)
    fabricate(tmp_path / "bad", 1.9, model="cell")
    names = [row.name or row.settings["model"] for row in table_of(tmp_path).rows]
    # 2.4, 4.8 and 6 bits are 1.66, 3.33 and 4.16 nats
    assert names == ["manual", "5-gram", "cell", "unigram", "uniform guess (chance)"]
    values = {row.name: row.summary.mean for row in table_of(tmp_path).rows}
    assert values["5-gram"] == pytest.approx(2.4 * math.log(2))
    in_bits = table_of(tmp_path, Metric("val/bits_per_character"))
    assert [row.summary.mean for row in in_bits.rows if row.name == "uniform guess (chance)"] == [pytest.approx(6.0)]
    accuracy = table_of(tmp_path, Metric("val/accuracy", mode="max"))
    assert [(row.name, row.summary.mean) for row in accuracy.rows if row.name] == [("uniform guess (chance)", 1 / 64)]


def test_each_text_has_a_table_of_its_own(tmp_path):
    fabricate(tmp_path / "a", 1.2, data="names", baselines={"uniform": 4.75})
    fabricate(tmp_path / "b", 1.5, data="enwik8", baselines={"uniform": 7.0})
    fabricate(tmp_path / "c", 1.4, data="enwik8", baselines={"uniform": 7.0}, seq_len=16, noise=0.1)
    report = report_of(tmp_path)
    found = [(table.text, [row.place or row.name for row in table.rows]) for table in report.tables]
    chance = "uniform guess (chance)"
    assert found == [("data names", ["1", chance]), ("data enwik8", ["1", "2", chance])]
    shown = to_text(sections(report))
    assert shown.index("data names:") < shown.index("1.2000") < shown.index("data enwik8:") < shown.index("1.4000")
    lines = list(csv.DictReader(io.StringIO(to_csv(report, [], ""))))
    kinds = [f"{line['data']} {line['kind']}" for line in lines]
    assert kinds == ["names runs", "names baseline", *["enwik8 runs"] * 2, "enwik8 baseline"]


@pytest.mark.parametrize("steps", [(158, 630), (1000, 1009)])
def test_rows_that_were_not_trained_equally_long_are_warned_of(tmp_path, steps):
    for name, count in zip("ab", steps, strict=True):
        fabricate(tmp_path / name, model=name, record={"steps": count, "seconds": count / 10})
    warning = "warning: these rows were not trained equally long: steps 158 to 630, seconds 15.8 to 63"
    assert unequal_costs(table_of(tmp_path)) == ([warning] if steps[0] == 158 else [])  # not within 1 %
    assert (warning in to_text(sections(report_of(tmp_path)))) == (steps[0] == 158)


def test_the_latex_table_escapes_what_latex_reads(tmp_path):
    fabricate(tmp_path / "a", model="50%_$x$")
    fabricate(tmp_path / "b", 1.6, model="cell")
    latex = to_latex(None, sections(report_of(tmp_path)), "python -m src.report runs")
    assert "\\begin{tabular}" in latex
    assert "\\toprule" in latex
    assert "50\\%\\_\\$x\\$" in latex


def test_a_sweep_of_two_keys_has_two_columns_and_the_csv_their_full_names(tmp_path):
    for hidden in (64, 128):
        for rate in (0.1, 0.01):
            fabricate(tmp_path / f"{hidden}_{rate}", 1 + rate + hidden / 1000, hidden_size=hidden, lr=rate)
    table = table_of(tmp_path)
    assert table.columns == ["model.hidden_size", "optimizer.lr"]
    assert to_text(sections(report_of(tmp_path))).splitlines()[4].split()[:4] == ["#", "hidden_size", "lr", "mean"]
    content = sections(report_of(tmp_path))
    parts = [part.splitlines() for part in to_text(content, 60).split("\n\n")[1:]]  # folded, nothing lost
    assert max(map(len, itertools.chain(*parts))) <= 60
    assert [part[0].split()[0] for part in parts] == ["#"] * len(parts)
    assert {cell for part in parts for cell in part[0].split()} == {*" ".join(content[1].grid).split()}
    lines = list(csv.DictReader(io.StringIO(to_csv(report_of(tmp_path), [], ""))))
    found = [(line["model.hidden_size"], line["optimizer.lr"], round(float(line["mean"]), 9)) for line in lines[:2]]
    assert found == [("64", "0.01", 1.074), ("128", "0.01", 1.138)]


def test_many_settings_that_follow_from_one_are_one_column(tmp_path):
    fabricate(tmp_path / "a", hidden_size=4, lr=0.1, model="cell", record={"experiment": "first"}, num_layers=2)
    fabricate(tmp_path / "b", hidden_size=64, lr=0.2, model="gru", record={"experiment": "second"})
    table = table_of(tmp_path)
    assert table.columns == ["experiment"]
    others = "model, model.num_layers, model.hidden_size"
    assert f"also different, each with a setting above: {others}" in to_text(sections(report_of(tmp_path)))
