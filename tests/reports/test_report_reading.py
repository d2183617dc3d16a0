"""What a run folder says, and that no folder is dropped: found, read, counted or listed with its reason."""

import csv
import io
import json
import math
import platform

import pytest
from fabricated import fabricate, report_of, runs_of

from src import report as command
from src.errors import UserError
from src.reports.formatting import sections, to_csv, to_text
from src.reports.runs import curves, find_runs, runs
from src.reports.table import Metric, build, resolve_metric


def reasons_of(report):
    return {one.run.folder.name: one.reason for one in report.left_out}


def test_every_run_that_is_not_counted_is_listed_with_its_reason(tmp_path):
    fabricate(tmp_path / "fine", 1.5)
    fabricate(tmp_path / "raised", None, status="failed", model="cell",
              record={"error": {"type": "ValueError", "message": "no\nsuch layer"}})  # fmt: skip
    fabricate(tmp_path / "killed", None, status="stopped", seed=1)
    fabricate(tmp_path / "cut", seed=8, status="stopped", record={"pruned": True, "steps": 30})
    fabricate(tmp_path / "going", None, status="running", seed=2, curve=[(0, 4.0), (100, 3.25)])
    fabricate(tmp_path / "diverged", float("nan"), seed=3, curve=[(0, 4.0)])
    fabricate(tmp_path / "silent", None, seed=4, curve=[])
    (tmp_path / "garbled").mkdir()
    (tmp_path / "garbled" / "run.json").write_text('{"status": "do')
    fabricate(tmp_path / "half", seed=5)
    (tmp_path / "half" / "config.yaml").unlink()
    fabricate(tmp_path / "lost", seed=6)
    (tmp_path / "lost" / "run.json").unlink()
    fabricate(tmp_path / "future", seed=7, record={"format": 2})
    report = report_of(tmp_path)
    assert reasons_of(report) == {
        "raised": "failed", "killed": "stopped", "cut": "pruned", "going": "running", "diverged": "not finite",
        "silent": "no value", **dict.fromkeys(("garbled", "half", "lost", "future"), "unreadable"),
    }  # fmt: skip
    (row,) = runs_of(*report.tables)
    assert (row.summary.n, row.summary.mean) == (1, 1.5)
    why = {one.run.folder.name: one.why for one in report.left_out}
    assert why["raised"] == "ValueError: no such layer"
    assert "format 2" in why["future"]
    shown = to_text(sections(report))
    counts = "1 counted, 1 failed, 4 unreadable, 1 not finite, 1 stopped, 1 pruned, 1 running, 1 no value"
    assert f"11 runs: {counts}" in shown
    assert "pruned by its search after 30 steps" in shown
    assert all(str(tmp_path / name) in shown for name in reasons_of(report))
    assert "  3.2500  still running" in shown
    assert "1 of 6" in shown  # seeds 0 to 4 and 8 share the settings; one counts
    kinds = [line["kind"] for line in csv.DictReader(io.StringIO(to_csv(report, [], "")))]
    assert kinds.count("not counted") == 10


def test_the_same_settings_and_seed_twice_count_once_and_the_newest(tmp_path):
    fabricate(tmp_path / "old", 9.0, record={"started": "2026-01-01T00:00:00+00:00"})
    fabricate(tmp_path / "new", 1.5, record={"started": "2026-01-02T00:00:00+00:00"})
    report = report_of(tmp_path)
    (row,) = runs_of(*report.tables)
    assert (row.summary.n, row.summary.mean, row.summary.sd) == (1, 1.5, None)
    assert reasons_of(report) == {"old": "repeated"}
    assert "9 here, 1.5 there" in report.left_out[0].why


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path):
    gone = {"pid": 2**22 + 7, "boot": None, "host": platform.node()}
    rebooted = {"pid": 1, "boot": "another boot", "host": platform.node()}
    fabricate(tmp_path / "gone", status="running", record={"process": gone})
    fabricate(tmp_path / "rebooted", status="running", seed=1, record={"process": rebooted})
    fabricate(tmp_path / "elsewhere", status="running", seed=2)
    fabricate(tmp_path / "done", seed=3)
    assert reasons_of(report_of(tmp_path)) == {"gone": "interrupted", "rebooted": "interrupted", "elsewhere": "running"}


def test_the_best_value_stands_beside_the_final_one_and_can_be_asked_for(tmp_path):
    fabricate(tmp_path / "a", 1.8, best=1.5, seed=0, curve=[(100, 1.9), (200, 1.5), (300, 1.8)])
    fabricate(tmp_path / "b", 1.6, best=1.3, seed=1, curve=[(100, 1.9), (200, 1.3), (300, 1.6)])
    (row,) = runs_of(*report_of(tmp_path).tables)
    assert (row.summary.mean, row.costs["best"]) == (pytest.approx(1.7), pytest.approx(1.4))
    (row,) = runs_of(*report_of(tmp_path, Metric("val/cross_entropy", at_best=True)).tables)
    assert row.summary.mean == pytest.approx(1.4)
    # another metric at the best checkpoint is read from the line of its step
    (row,) = runs_of(*report_of(tmp_path, Metric("val/bits_per_character", at_best=True)).tables)
    assert row.summary.mean == pytest.approx(1.4 / math.log(2))
    for at in (None, "best"):
        named = resolve_metric("best/val/cross_entropy", None, at, find_runs([str(tmp_path)]))
        assert named == Metric("val/cross_entropy", at_best=True)


def test_evaluations_are_compared_on_their_split(tmp_path):
    fabricate(tmp_path / "a", 1.0, evaluations={"test": 1.7})
    fabricate(tmp_path / "b", 1.1, seed=1, evaluations={"test": 1.9})
    fabricate(tmp_path / "c", 0.9, seed=2)
    fabricate(tmp_path / "d", 0.9, seed=3, evaluations={"test": 1.2})
    for name, step in (("a", 200), ("d", 100)):  # d was evaluated, and then trained on
        file = tmp_path / name / "evaluation_test.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "step": step}))
    found = find_runs([str(tmp_path)])
    for name, split in ((None, "test"), ("cross_entropy", "test"), ("test/cross_entropy", None)):
        report = build(found, resolve_metric(name, split, None, found))
        (row,) = runs_of(*report.tables)
        assert (row.summary.mean, row.summary.n) == (pytest.approx(1.8), 2)
        assert reasons_of(report) == {"c": "no value", "d": "no value"}
        assert any(row.name == "5-gram" for row in report.tables[0].rows)


def test_a_text_without_validation_is_compared_on_what_it_was_trained_on(tmp_path):
    final = {"train/loss": 3.4, "train/cross_entropy": 0.68}
    fabricate(tmp_path / "hello", data="hello", curve=[], record={"metrics": {"final": final, "best": None}})
    found = find_runs([str(tmp_path)])
    assert resolve_metric(None, None, None, found).name == "train/cross_entropy"
    fabricate(tmp_path / "text", 1.5)  # beside runs of a text with a validation, each is compared by its own
    found = find_runs([str(tmp_path)])
    report = build(found, resolve_metric(None, None, None, found))
    assert {row.summary.mean for row in runs_of(*report.tables)} == {0.68, 1.5}
    assert not report.left_out
    shown = to_text(sections(report))
    assert "data hello: train/cross_entropy at the end of training" in shown
    assert "data tiny_shakespeare: val/cross_entropy at the end of training" in shown
    report = build(found, resolve_metric("val/cross_entropy", None, None, found))
    assert reasons_of(report) == {"hello": "no value"}


@pytest.mark.parametrize(
    ("name", "split", "told"),
    [("nonsense", None, "known: val/cross_entropy"), (None, "train", r"src.evaluate run=DIR split=train")],
)
def test_a_metric_that_no_run_has_is_answered_with_the_nearest(tmp_path, name, split, told):
    fabricate(tmp_path / "a", evaluations={"test": 1.7})
    found = find_runs([str(tmp_path)])
    with pytest.raises(UserError, match=told):
        resolve_metric(name, split, None, found)


def test_a_run_is_found_once_however_often_it_is_named(tmp_path, monkeypatch):
    fabricate(tmp_path / "runs" / "sweep" / "a")
    monkeypatch.chdir(tmp_path)
    given = ["runs", "runs/sweep", str(tmp_path / "runs/sweep/a")]
    assert [str(run.folder) for run in find_runs(given)] == ["runs/sweep/a"]


def test_odd_records_and_numbers_beyond_every_float_do_not_stop_the_report(tmp_path):
    fabricate(tmp_path / "good", curve=[(0, 4.0), (100, 1.5)])
    gone = {"pid": 10**20, "host": platform.node()}
    for i, record in enumerate(({"metrics": None}, {"metrics": {"final": [], "best": "no"}}, {"baselines": [1]},
                                {"seed": "zero", "error": "text", "process": 3}, {"seconds": 10**400},
                                {"model": "caf\udce9", "steps": "many"},
                                {"status": "running", "process": gone})):  # fmt: skip
        fabricate(tmp_path / str(i), seed=i, record=record)
    for i, content in enumerate(("- a\n- b\n", "a: [", "", "\x00")):
        fabricate(tmp_path / f"yaml{i}", config=content)
    wild = fabricate(tmp_path / "wild", 1e200, seed=4, curve=[(0, 4.0), (100, 1e200)])
    with (wild / "metrics.jsonl").open("a") as file:
        file.write('{"step": 200, "val/cross_entropy": ' + "9" * 400 + "}\n" + "[" * 100_000 + "\n")
    out = command.report([str(tmp_path), "--html", str(tmp_path / "page.html"), "--figures", str(tmp_path / "figures")])
    assert out.startswith("13 runs: ")
    assert "caf\\udce9" in out
    assert "4 unreadable" in out.splitlines()[0]


def test_runs_are_a_frame_with_one_row_each(tmp_path):
    fabricate(tmp_path / "a", 1.5, best=1.4, seed=1, hidden_size=64, evaluations={"test": 1.7})
    fabricate(tmp_path / "b", None, status="failed", model="lstm")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.json").write_text("{")
    frame = runs(tmp_path)
    assert list(frame.status) == ["done", "failed", "unreadable"]
    first = frame.iloc[0]
    assert (first.folder, first.seed, first.model) == (str(tmp_path / "a"), 1, "manual")
    assert (first["model.hidden_size"], first["trainer.max_epochs"], first.steps) == (64, 10, 200)
    assert (first["val/cross_entropy"], first["best/val/cross_entropy"]) == (1.5, 1.4)
    assert (first["evaluation/test/cross_entropy"], first["baseline/uniform"]) == (1.7, 6.0)


def test_curves_are_a_frame_with_one_row_a_validation(tmp_path):
    fabricate(tmp_path / "a", seed=3, curve=[(100, 2.0), (200, 1.5)])
    fabricate(tmp_path / "b", seed=4, curve=[(100, 3.0)])
    frame = curves([tmp_path / "a", tmp_path / "b"])
    assert frame[["seed", "step", "val/cross_entropy"]].to_numpy().tolist() == [[3, 100, 2], [3, 200, 1.5], [4, 100, 3]]
    assert len(runs(tmp_path).merge(frame, on=["folder", "seed"])) == 3


def test_any_number_of_metrics_jsonl_can_be_compared(tmp_path):
    folder = fabricate(tmp_path / "a")
    with (folder / "metrics.jsonl").open("a") as file:
        measured = {"recurrent/spectral_radius/layer_0": 0.9, "gradient/lag_1_percent/layer_0": 20}
        file.write(json.dumps({"step": 300, **measured}) + '\n{"step": 400}\n')  # not in every line
    for (name, value), better in zip(measured.items(), ("min", "max"), strict=True):  # a longer reach is better
        metric = resolve_metric(name, None, None, find_runs(tmp_path))
        (row,) = runs_of(*report_of(tmp_path, metric).tables)
        assert (row.summary.mean, metric.mode) == (value, better)
