"""Several loggers at once, with the real packages and without a network: each is read back by its own API."""

from __future__ import annotations

import csv
import html
import importlib.util
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from src import train
from src.config.checks import errors_in_config
from src.config.compose import compose, to_config
from src.errors import UserError
from tests.diagnostics.test_watched_runs import SMALL, TEXT
from tests.runs.commands import environment, last_of_each, only_run, refused, refused_here, run, scalars

pytestmark = pytest.mark.slow
FIGURES, SAMPLES = ("gradient/by_lag", "text/surprisal"), "samples/temperature_0.8"
CHEAPER = ("loss_by_position", "recurrent_matrix", "confusions", "hidden_states", "input_vectors")
HERE = {"WANDB_MODE": "offline", "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with four loggers of two epochs, resumed for a third."""
    for package in ("wandb", "mlflow"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the extra {package} is not installed")
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "text.txt").write_text(TEXT)
    few = [f"callbacks.{name}.enabled=false" for name in CHEAPER]
    words = [*SMALL, *few, "model=manual", "logger=[tensorboard,csv,wandb,mlflow]", "trainer.max_epochs=2"]
    ids = []
    # In this process, which imports the packages to read them back
    with pytest.MonkeyPatch.context() as given, warnings.catch_warnings(action="ignore"):
        given.chdir(folder)
        for name, value in HERE.items():
            given.setenv(name, value)
        for part in (words, ["resume=last", "trainer.max_epochs=3"]):
            given.setattr(sys, "argv", ["train", *last_of_each(part)])
            train.main()
            ids.append(json.loads((only_run(folder) / "run.json").read_text())["loggers"])
    assert ids[0] == ids[1]
    return folder


def expected(folder: Path, tag: str) -> list[tuple[int, float]]:
    """The points of a curve by the lines of metrics.jsonl."""
    lines = [json.loads(line) for line in (only_run(folder) / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], pytest.approx(line[tag], rel=1e-6)) for line in lines]


def test_tensorboard_and_csv_have_each_point_once(tracked: Path) -> None:
    with (only_run(tracked) / "metrics.csv").open(newline="") as file:
        rows = [(row["tag"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file)]
    points = [(step, value) for tag, step, value in rows if tag == "val/cross_entropy"]
    assert points == expected(tracked, "val/cross_entropy")
    events = scalars(only_run(tracked))
    for tag, points in events.items():
        assert points == [(step, pytest.approx(value)) for name, step, value in rows if name == tag], tag
    assert events.keys() == {tag for tag, _, _ in rows}


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # of SQLAlchemy 2.1, for mlflow
def test_mlflow_has_one_run_with_its_curves_figures_texts_and_configuration(tracked: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked}/runs/mlflow.db")
    (experiment,) = (one for one in client.search_experiments() if one.name != "Default")
    (found,) = client.search_runs([experiment.experiment_id])
    assert experiment.name == "text_manual"
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "/".join(only_run(tracked).parts[-2:])
    curve = client.get_metric_history(found.info.run_id, "val/cross_entropy")
    assert [(point.step, point.value) for point in curve] == expected(tracked, "val/cross_entropy")
    assert {"best/val/bits_per_character", "baseline/uniform", "train/loss"} <= found.data.metrics.keys()
    assert (found.data.params["model.hidden_size"], found.data.params["trainer.max_epochs"]) == ("8", "2")
    assert found.data.tags["trainer.max_epochs"] == "3"  # what a resume has changed
    pictures = [Path(file.path).name for file in client.list_artifacts(found.info.run_id, "images")]
    for tag in FIGURES:
        shown = [name for name in pictures if name.startswith(tag.replace("/", "~")) and name.endswith(".png")]
        assert sorted(int(name.split("+step+")[1].split("+")[0]) for name in shown) == [6, 12, 18]
    written = client.list_artifacts(found.info.run_id, SAMPLES)
    assert [Path(file.path).name for file in written] == [f"step_{step:06d}.txt" for step in (6, 12, 18)]
    assert len(Path(client.download_artifacts(found.info.run_id, written[0].path)).read_text()) == 40


def wandb_records(folder: Path) -> list[dict[str, Any]]:
    """All records of what wandb has kept offline, in the order in which they were written."""
    found = []
    for path in sorted(folder.glob("runs/wandb/offline-run-*/*.wandb")):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(**HERE)).stdout
        found += [json.loads(line) for line in out.splitlines()]
    return found


def test_wandb_has_one_run_with_its_curves_figures_texts_and_configuration(tracked: Path) -> None:
    records = wandb_records(tracked)
    stored = json.loads((only_run(tracked) / "run.json").read_text())["loggers"]["wandb"]["id"]
    assert [record["run"]["run_id"] for record in records if record["type"] == "run"] == [stored] * 2
    configs = [record["config"]["update"] for record in records if record["type"] == "config"]
    kept = {key: value for update in configs for key, value in update.items()}
    assert (kept["model"]["hidden_size"], kept["trainer"]["max_epochs"]) == (8, 3)
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    tag = "val/cross_entropy"
    assert [(row["trainer/global_step"], row[tag]) for row in rows if tag in row] == expected(tracked, tag)
    for name in (*FIGURES, SAMPLES):
        assert [row["trainer/global_step"] for row in rows if f"{name}._type" in row] == [6, 12, 18], name
    written = sorted(tracked.glob(f"runs/wandb/offline-run-*/files/media/html/{SAMPLES}_*.html"))
    assert len(written) == 3
    assert len(html.unescape(re.sub("<.*?>", "", written[0].read_text()))) == 40
    pictures = tracked.glob(f"runs/wandb/offline-run-*/files/media/images/{FIGURES[0]}_*.png")
    assert len({path.read_bytes() for path in pictures}) == 3


def test_a_wrong_logger_is_refused_before_there_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, right in (
        (["logger=[tensorboard,wanb]"], "did you mean wandb?"),
        (["logger=csv", "logger.wandb.project=x"], "logger.wandb.project"),
        (["logger=csv", "+logger.csv.prefix=x"], "logger.csv.prefix: RunCSV has only folder"),
        (["logger=csv", "logger.csv._target_=os.system"], "logger.csv._target_=os.system: expected lightning"),
        (["logger=csv", "logger.csv._target_=lightning.pytorch.loggers.NoLogger"], "there is no such logger"),
    ):
        (line,) = refused_here(*words, cwd=tmp_path)
        assert right in line
    assert not (tmp_path / "runs").exists()
    config = to_config(compose(["logger=[csv,mlflow]"]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (error,) = errors_in_config(config)
    assert error.endswith("needs the extra mlflow, which is not installed: pip install -e '.[mlflow]'")


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the extra mlflow is not installed")
def test_a_store_that_cannot_be_reached_is_one_line_and_a_failed_run(tmp_path: Path) -> None:
    unreachable = ("logger=mlflow", "logger.mlflow.tracking_uri=nonsense://x")
    run("logger=none", "callbacks=none", "trainer.max_epochs=1", cwd=tmp_path)
    folder, longer = only_run(tmp_path), "trainer.max_epochs=2"
    for words in ((f"resume={folder}", longer), (f"runs={tmp_path / 'new'}",)):
        (line,) = refused(*words, *unreachable, cwd=tmp_path)
        assert "logger.mlflow (MLFlowLogger) cannot be opened" in line
    for one, status in ((folder, "stopped"), (only_run(tmp_path / "new"), "failed")):
        record = json.loads((one / "run.json").read_text())
        assert (record["status"], record["error"]["type"]) == (status, UserError.__name__)
    run(f"resume={folder}", "logger=[csv,tensorboard]", cwd=tmp_path)  # to the length that was asked for
    assert json.loads((folder / "run.json").read_text())["epochs"] == 2
    assert (folder / "metrics.csv").exists()
    assert list(folder.glob("events.out.tfevents.*"))
