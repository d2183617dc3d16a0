"""Studies: each of experiments/ runs, small; README.md shows what results.csv holds; one of one's own is one file."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from src import study
from src.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(file.parent.name for file in (ROOT / "experiments").glob("*/study.yaml"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run src.study in this process, in an empty folder; return what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLL_CACHE", str(cache))

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
    assert f"written: results.csv, README.md, figure (png, svg, pdf) in runs/.smoke/{name}" in command(
        name, "smoke=true"
    )
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
quick: {seed: [0]}
metric: [val/cross_entropy]
rows: [model.hidden_size, optimizer.lr]
figure: {x: [model.hidden_size]}
"""


def test_one_file_is_a_study_whose_results_are_checked_and_a_smaller_size_replaces_no_larger_one(  # type: ignore[no-untyped-def]
    command, tmp_path
) -> None:
    folder = tmp_path / "experiments" / "own"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(OWN)
    assert command() == f"{'own':22} Does a wider network need a lower learning rate?\n"
    assert "2 jobs: 0 done, 2 to do" in command("own", "size=quick")
    assert pd.read_csv(folder / "results.csv").seed.tolist() == [0, 0]
    assert "4 jobs: 2 done, 2 to do" in command("own")  # a part of the grid is done already
    frame, readme = pd.read_csv(folder / "results.csv"), folder / "README.md"
    page = readme.read_text()
    for width, rate in ((8, 0.004), (16, 0.002)):
        values = frame[frame["model.hidden_size"] == width]["val/cross_entropy"]
        assert len(values) == 2
        row = rf"\| {width} +\| {rate} +\| {values.mean():.3f} ± {values.std():.3f} +\|"
        assert re.search(row, page)
    assert "4 runs, 4 done, 2 seeds" in page
    command("own", "check=true")
    kept = (folder / "results.csv").read_bytes()
    assert "in runs/studies/own" in command("own", "size=quick")
    assert (folder / "results.csv").read_bytes() == kept
    readme.write_text("# Mine\n\nabove\n" + page.replace("4 runs", "5 runs") + "below\n")
    with pytest.raises(UserError, match="does not show what results"):
        command("own", "check=true")
    command("own", "table=true")
    command("own", "check=true")
    assert readme.read_text() == "# Mine\n\nabove\n" + page + "below\n"
    shutil.rmtree(tmp_path / "runs")


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("question: x\n", ["own"], "a study needs sweeps and a metric"),
        (OWN + "rwos: [seed]\n", ["own"], "Key 'rwos' not in 'Study'"),
        (OWN.replace("optimizer.lr: 0.002", "optimizer.rl: 0.002"), ["own"], "optimizer.rl: there is no such key"),
        (
            OWN.replace("rows: [model.hidden_size", "rows: [model.hiden_size"),
            ["own"],
            "no key model.hiden_size; did you mean",
        ),
        (OWN, ["wn"], "there is no experiments/wn/study.yaml; did you mean own"),
        (OWN, ["own", "size=small"], "size=small: expected full or quick"),
        (OWN, ["own", "optimizer.lr=1"], "only keys that change no result"),
        (
            OWN.replace("quick: {seed: [0]}", "quick: {seed: [9]}"),
            ["own", "size=quick"],
            "no run of the grid is in the part",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(content, words, message, command, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "experiments" / "own").mkdir(parents=True)
    (tmp_path / "experiments" / "own" / "study.yaml").write_text(content)
    with pytest.raises(UserError) as refused:
        command(*words)
    assert message in str(refused.value)
    assert not (tmp_path / "runs").exists()
