"""Studies: each of experiments/ runs, small; README.md shows what results.csv holds; one of one's own is one file."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from src import study
from src.config.schema import Study, StudyFigure
from src.errors import UserError
from src.reports.results import csv_of, draw, table, write
from src.reports.runs import Run
from tests.reports.fabricated import fabricate

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(file.parent.name for file in (ROOT / "experiments").glob("*/study.yaml"))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run src.study in this process, in an empty folder; return what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["study", *words])
        with contextlib.suppress(SystemExit):
            study.main()
        return capsys.readouterr().out

    return run


def test_the_studies_are_listed_with_their_questions(command) -> None:  # type: ignore[no-untyped-def]
    printed = command()
    assert [line.split()[0] for line in printed.splitlines()] == STUDIES
    assert printed.count("?\n") == len(STUDIES) >= 9


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_small_into_a_scratch_folder(name, command, tmp_path) -> None:  # type: ignore[no-untyped-def]
    before = {path: path.read_bytes() for path in (ROOT / "experiments").rglob("*") if path.is_file()}
    written = f"written: results.csv, README.md, figure (png, svg, pdf) in runs/.smoke/{name}"
    assert written in command(name, "smoke=true")
    frame = pd.read_csv(tmp_path / "runs" / ".smoke" / name / "results.csv")
    assert set(frame.status) == {"done"}
    assert set(frame["size"]) == {"smoke"}
    assert (frame.steps == 2).all()
    assert {"seed", "seconds", "commit", "torch", "processor"} <= {*frame}
    assert 2 <= len(frame) <= 4
    readme = (tmp_path / "runs" / ".smoke" / name / "README.md").read_text()
    assert re.search(r"^\|[-:|]+\|$", readme, re.MULTILINE)
    assert {path: path.read_bytes() for path in (ROOT / "experiments").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_of_a_study_shows_its_results(name, command) -> None:  # type: ignore[no-untyped-def]
    command(name, "check=true")


OWN = """question: Does a wider network need a lower learning rate?
sweeps:
  - params: {data: pydoc, model: manual, seed: [0, 1], trainer.max_steps: 2, callbacks: none}
    jobs:
      - {model.hidden_size: 8, optimizer.lr: 0.004}
      - {model.hidden_size: 16, optimizer.lr: 0.002}
quick: {seed: 0}
evaluate: [val]
metric: [val/cross_entropy, evaluation/val/cross_entropy]
rows: [model.hidden_size, optimizer.lr]
figure: {x: [model.hidden_size]}
"""


def test_one_file_is_a_study_whose_results_are_checked_and_a_smaller_size_replaces_no_larger_one(  # type: ignore[no-untyped-def]
    command, tmp_path, monkeypatch
) -> None:
    folder = tmp_path / "experiments" / "own"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(OWN)
    assert command() == f"{'own':22} Does a wider network need a lower learning rate?\n"
    assert "2 jobs: 0 done, 2 to do" in command("own", "size=quick")
    assert pd.read_csv(folder / "results.csv").seed.tolist() == [0, 0]
    assert "4 jobs: 2 done, 2 to do" in command("own")  # a part of the grid is done already
    frame, readme = pd.read_csv(folder / "results.csv"), folder / "README.md"
    page, kept = readme.read_text(), (folder / "results.csv").read_bytes()
    for width, rate in ((8, 0.004), (16, 0.002)):
        values = frame[frame["model.hidden_size"] == width]["val/cross_entropy"]
        assert len(values) == 2
        row = rf"\| {width} +\| {rate} +\| {values.mean():.3f} ± {values.std():.3f} +\| {values.mean():.2f}"
        assert re.search(row, page)
    assert "4 runs, 4 done, 2 seeds" in page
    assert command("own", "check=true") == "experiments/own/README.md shows what results.csv holds\n"
    for evaluation in tmp_path.rglob("evaluation_val.json"):  # src.evaluate at=last
        evaluation.write_text(evaluation.read_text().replace('"best"', '"last"').replace(": 4.", ": 9."))
    command("own")
    assert (folder / "results.csv").read_bytes() == kept
    assert "written" not in command("own", "sweep.dry_run=true")
    with monkeypatch.context() as patched:
        patched.setattr(study, "run_sweep", lambda *_: 1)  # stopped at the first failure
        assert "4 of 4 runs not made; " in command("own", "runs=elsewhere")
    for checkpoint in tmp_path.rglob("*.ckpt"):  # to make room
        checkpoint.unlink()
    assert "in runs/studies/own" in command("own", "size=quick")
    assert (folder / "results.csv").read_bytes() == kept
    readme.write_bytes(b"own \xff")
    with pytest.raises(UserError, match=r"README.md is not UTF-8: byte 4 is wrong"):
        command("own")
    readme.write_text("# Mine\n\nabove\n" + page.replace("4 runs", "5 runs") + "below\n")
    with pytest.raises(UserError, match="does not show what results"):
        command("own", "check=true")
    assert command("own", "table=true") == command("own", "check=true") != ""
    assert readme.read_text() == "# Mine\n\nabove\n" + page + "below\n"
    shutil.rmtree(tmp_path / "runs")


@pytest.mark.parametrize(
    ("old", "new", "words", "message"),
    [
        (OWN, "question: x\n", ["own"], "a study needs sweeps and a metric"),
        ("rows:", "rwos: [seed]\nrows:", ["own"], "Key 'rwos' not in 'Study'; did you mean rows?"),
        ("rows: [model.hidden_size, optimizer.lr]", "rows: seed", ["own"], "study.yaml: rows: expected a list;"),
        ("optimizer.lr: 0.002", "optimizer.rl: 0.002", ["own"], "optimizer.rl: there is no such key"),
        ("rows: [model.h", "rows: [m.h", ["own"], "no key m.hidden_size; did you mean model.hidden_size"),
        ("", "", ["wn"], "there is no experiments/wn/study.yaml; did you mean own"),
        ("", "", ["own", "size=small"], "size=small: expected full or quick"),
        ("", "", ["own", "size=quick", "size=full"], "size is given twice"),
        ("", "", ["own", "optimizer.lr=1"], "only keys that change no result"),
        ("", "", ["own", "experiment=tutorial"], "only keys that change no result"),
        ("quick: {seed: 0}", "quick: {seed: 9}", ["own", "size=quick"], "no run of the grid is in the part"),
        ("seed: [0, 1]", "seed: 0, data.seq_len: [4, 8]", ["own"], "of one seed, which differ in data.seq_len; add"),
        ("rows:", "success: high\nrows:", ["own"], "study.yaml: success: Value 'high' of type 'str' could not"),
        ("rows:", "digits: -1\nrows:", ["own"], "digits=-1: expected at least 0"),
        ("[val]", "[tset]", ["own"], "evaluate=['tset']: expected a list of train, val, test"),
        ("[val]", "[val, test]", ["own"], "evaluate: [test]: data=pydoc has train, val"),
        ("[val/cross", "[val/cros", ["own"], "no metric val/cros_entropy; did you mean val/cross_entropy"),
        ("hidden_size]}", "hidden_size], y: [evaluation/test/accuracy]}", ["own"], "accuracy needs evaluate: [test]"),
        ("hidden_size]}", "hidden_size], log: q}", ["own"], "figure.log=q: expected one of x, y, xy"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(old, new, words, message, command, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "experiments" / "own").mkdir(parents=True)
    (tmp_path / "experiments" / "own" / "study.yaml").write_text(OWN.replace(old, new))
    with pytest.raises(UserError) as refused:
        command(*words)
    assert message in str(refused.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("values", "places", "labels"),
    [
        (["[20]", "[10, 200]"], [20, 200], ["20", "10, 200"]),
        (["[200]", "[10, 200]", "[20]"], [1, 2, 3], ["20", "200", "10, 200"]),  # 200 twice
        (["null", "1", "0.1"], [1, 2, 3], ["null", "1", "0.1"]),
    ],
)
def test_each_value_has_a_place_of_its_own_on_the_axis_of_a_figure(values, places, labels) -> None:  # type: ignore[no-untyped-def]
    frame = pd.DataFrame({"data.length": values, "status": "done", "loss": [*map(str, range(len(values)))]})
    (axes,) = draw(Study(metric=["loss"], figure=StudyFigure(x=["data.length"])), frame, []).axes
    assert ([*axes.get_xticks()], [label.get_text() for label in axes.get_xticklabels()]) == (places, labels)
    assert [values[int(loss)].strip("[]") for loss in axes.lines[0].get_ydata()] == labels


def test_a_run_that_went_on_has_the_commits_of_all_its_starts_and_unequal_networks_a_spread() -> None:
    record = {"git": {"commit": "b" * 40}, "resumed": [{"before": {"git": {"commit": "a" * 40, "dirty": True}}}]}
    written = csv_of(Study(metric=["loss"]), "full", [Run(Path("a"), "done", record=record)])
    assert pd.read_csv(io.StringIO(written)).commit.tolist() == [f"{'a' * 10} with changes + {'b' * 10}"]
    for sizes, shown in ((("7", "7"), "| 7 "), (("6", "8"), "| 7 ± 1 ")):
        frame = pd.DataFrame({"status": "done", "parameters": sizes})
        assert shown in table(Study(metric=["parameters"]), frame)


def test_a_study_of_failed_runs_is_written_and_levels_of_val_stand_on_its_panel_alone(tmp_path) -> None:  # type: ignore[no-untyped-def]
    fabricate(tmp_path / "a", status="failed", record={"versions": {"torch": "2", "python": "3"}})
    study_of_one = Study(question="?", metric=["evaluation/val/cross_entropy"])
    write(study_of_one, tmp_path / "own", "full", [tmp_path / "a"])
    assert "| failed" in (tmp_path / "own" / "README.md").read_text()
    values = {"val/loss": "1", "train/loss": "1", "baseline unigram": "1"}
    frame = pd.DataFrame({"model": ["cell"], "status": "done", **values})
    both = StudyFigure(x=["model"], y=["train/loss", "val/loss"])
    panels = draw(Study(metric=["val/loss"], figure=both), frame, []).axes
    assert ["unigram 1" in [text.get_text() for text in axes.texts] for axes in panels] == [False, True]


@pytest.mark.parametrize(("low", "high", "ticks"), [(0.3, 1, "0.3 0.4 0.6 1"), (0.93, 1.02, "0.94 0.96 0.98 1 1.02")])
def test_a_curve_is_no_share_and_a_logarithmic_axis_has_plain_numbers(low, high, ticks) -> None:  # type: ignore[no-untyped-def]
    run = Run(Path("a"), "done", curve=[{"step": 0, "loss": high}, {"step": 9, "loss": low}])
    frame = pd.DataFrame({"model": ["cell"], "status": "done", "loss": str(low)})
    study = Study(metric=["loss"], success=low, figure=StudyFigure(x=["step", "model"], log="y"))
    curve, shares = draw(study, frame, [run]).axes
    assert (curve.get_ylabel(), shares.get_ylabel()) == ("loss", f"share of seeds, loss ≥ {low}")
    shown = {one.get_position()[1]: one.get_text() for one in curve.yaxis.get_ticklabels(which="both")}
    assert " ".join(text for at, text in sorted(shown.items()) if text and low <= at <= high) == ticks
