"""What commit 3282607 stored (make.py) is still resumed, recognised as done, evaluated, sampled, reported and exported.

Only commands and `load` are used. Numbers agree to 1e-4, since processors differ in their last digits.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from src import load
from tests.runs.commands import run
from tests.stored import make

HERE = Path(__file__).resolve().parent
EXPECTED = json.loads((HERE / "expected.json").read_text())
NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[-+]\d+)?")
Command = Callable[..., str]
CLOCK = ("seconds", "train/characters_per_second")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the stored folder, as if it had been made there."""
    folder = tmp_path_factory.mktemp("stored")
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    for path in (path for path in folder.rglob("*") if path.suffix in make.TEXTS):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(make.ROOT, str(folder)).replace(make.HOST, socket.gethostname()))
    return folder


@pytest.fixture(scope="module")
def command(folder: Path) -> Command:
    """Run `src.<module> arguments...` in the folder, and return what it prints."""
    cache = str(folder / "cache")
    return lambda module, *arguments: run(*arguments, module=f"src.{module}", cwd=folder, UNROLL_CACHE=cache)


@pytest.fixture
def copied(folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A stored run in a folder of its own, which a test may change; the parameter names the run."""
    copy = shutil.copytree(folder / "runs" / request.param, folder / "copied")
    yield copy
    shutil.rmtree(copy)


def contents(folder: Path) -> dict[str, bytes]:
    """What a run has written, below a folder: all its files but logs and locks."""
    files = (path for path in folder.rglob("*") if path.suffix in (".ckpt", ".jsonl", ".json", ".yaml", ".csv"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in path.read_text().splitlines()]


def curves_of(run: Path) -> dict[str, float]:
    """{"step tag": value} of metrics.csv, without what the clock says."""
    with (run / "metrics.csv").open(newline="") as file:
        return {f"{step} {tag}": float(v) for step, tag, v in [*csv.reader(file)][1:] if not tag.endswith(CLOCK)}


def close(found: Any, stored: Any) -> bool:
    """Whether two values of JSON agree, numbers to 1e-4; what was added since then does not count."""
    if isinstance(stored, dict):
        return all(key in found and close(found[key], stored[key]) for key in stored if key not in CLOCK)
    if isinstance(stored, list):
        return len(found) == len(stored) and all(map(close, found, stored))
    return bool(found == pytest.approx(stored, rel=1e-4)) if isinstance(stored, float) else bool(found == stored)


def same_text(printed: str, stored: str) -> None:
    """Equal but for spaces and rules, a run's own folder and seconds, and the last digits of numbers."""
    parts = []
    for text in (printed, stored):
        text = re.sub(r"done in [\d.]+ s", "done in S s", text)
        text = re.sub(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\w{6}", "ID", text)
        text = re.sub(r"[ -]{2,}", " ", text)
        parts.append((NUMBER.sub("NUMBER", text), [float(number) for number in NUMBER.findall(text)]))
    (found, numbers), (expected, stored_numbers) = parts
    assert found == expected
    assert numbers == pytest.approx(stored_numbers, rel=1e-4, abs=1.1e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", ["train", "trainer.threads=1", "runs=elsewhere"]),
        ("report", ["report", "runs"]),
        ("report_sweep", ["report", *make.REPORT]),
    ],
)
def test_a_command_prints_what_it_printed(command: Command, name: str, words: list[str]) -> None:
    stored = (HERE / f"printed/{name}.txt").read_text()
    units = "nats per character, as all losses below"
    now = {
        "to beat, in bits a character: uniform 2.000": f"baselines ({units}): uniform 1.386",
        "4 characters to tell apart": "vocabulary of 4",
        "model.nonlinearity\n": "model.nonlinearity, model.single_bias\n",  # lstm and gru have neither
    }
    for before, after in now.items():
        stored = stored.replace(before, after)
    same_text(command(*words), stored)


@pytest.mark.parametrize("copied", ["killed"], indirect=True)
def test_a_killed_run_ends_as_the_one_that_was_not(command: Command, copied: Path) -> None:
    command("train", f"resume={copied}")
    *lines, last = read_lines(copied / "metrics.jsonl")
    assert close(lines, read_lines(HERE / "runs/finished/metrics.jsonl"))
    record, stored = (json.loads((run / "run.json").read_text()) for run in (copied, HERE / "runs/finished"))
    assert (record["status"], last["step"]) == ("done", stored["steps"])  # a validation that runs did not have then
    curves, stored_curves = (curves_of(run) for run in (copied, HERE / "runs/finished"))
    other = re.compile(" (best|final)/|spectral_radius")  # the radius was up to 1 % off
    assert close(curves, {key: value for key, value in stored_curves.items() if not other.search(key)})


@pytest.mark.parametrize("copied", ["finished"], indirect=True)
def test_a_finished_run_is_left_as_it_is_until_more_epochs_are_asked_for(command: Command, copied: Path) -> None:
    before = contents(copied)
    command("train", f"resume={copied}")
    assert contents(copied) == before
    command("train", f"resume={copied}", make.EXTENDED)
    final = {key: value for key, value in EXPECTED["extended"]["final"].items() if key.startswith("val/")}
    assert close(read_lines(copied / "metrics.jsonl")[-2], final)  # the last line is of the run's end


@pytest.mark.parametrize("copied", ["finished"], indirect=True)
def test_a_run_is_evaluated_and_exported_as_before(command: Command, folder: Path, copied: Path) -> None:
    text = f"data.path={folder / 'text.txt'}"
    found = json.loads(command("evaluate", f"run={copied}", text, "format=json"))
    assert close(found, EXPECTED["evaluate"])
    assert close(json.loads((copied / "evaluation_val.json").read_text()), EXPECTED["evaluate"])
    command("export", f"run={copied}", "format=safetensors")
    now, stored = (json.loads((path / "weights.json").read_text()) for path in (copied / "export", HERE / "exports"))
    assert now["config"]["logger"].keys() == {stored["config"].pop("logger")["name"]}  # of several at once now
    assert close(now, json.loads(json.dumps(stored).replace(make.ROOT, str(make.FOLDER))))


@pytest.mark.parametrize("name", make.MODELS)
def test_a_model_writes_and_scores_as_before(name: str) -> None:
    assert close(make.used(HERE / name), EXPECTED["models"][name])


def test_an_exported_step_computes_what_its_model_does() -> None:
    step, model = torch.export.load(HERE / "exports/step.pt2").module(), load(HERE / "exports/weights.safetensors")
    state = torch.zeros(2, 1, 8)
    for symbol in range(5):
        logits, state = step(torch.tensor([symbol]), state)
        expected, _ = model.model(torch.arange(symbol + 1)[:, None], None)
        torch.testing.assert_close(logits, expected[-1], rtol=1e-4, atol=1e-5)


def test_a_sweep_that_is_done_trains_nothing(command: Command, folder: Path) -> None:
    before = contents(folder / "runs/sweeps/stored")
    printed = command("train", *make.SWEEP)
    assert "3 done, 0 to do" in printed
    assert contents(folder / "runs/sweeps/stored") == before


def test_a_study_goes_on_with_the_trials_it_lacks(command: Command, folder: Path) -> None:
    pytest.importorskip("optuna")
    study = folder / "runs/search/stored"
    before, rows = contents(study / "trials"), (study / "trials.csv").read_text().splitlines()
    command("search", *make.SEARCH, "search.trials=5")
    after = contents(study / "trials")
    assert before.items() <= after.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"0004"}
    assert (study / "trials.csv").read_text().splitlines()[:-1] == rows


@pytest.mark.parametrize("words", make.KEYS)
def test_a_sweep_gives_its_runs_the_keys_it_gave(command: Command, words: str) -> None:
    """Where defaults mean something else today, with the keys that give them their old meaning."""
    old = ["data.evaluation_warmup=null"]
    if "adamw" in words or "experiment" in words:
        old += ["optimizer.decay=all", "trainer.average_last_group=false"]
    if "data=text" in words:
        old += ["budget=null", "data.seq_len=64", "data.batch_size=32", "data.offset=fixed", "optimizer=adam"]
        old += ["optimizer.lr=0.002", "trainer.gradient_clip_val=1.0"]
    printed = command("train", "-m", *words.split(), *old, "sweep.dry_run=true")
    found = [re.sub(r"/[^/]+-(?=\w{12}$)", "/", folder) for folder in make.folders(printed)]  # they had no other name
    assert found == EXPECTED["keys"][words]
