"""Every corpus of conf/data composes to a sound configuration, and trains two steps where its text is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.config.checks import errors_in_config
from src.config.compose import compose, to_config
from src.config.overrides import groups
from src.config.schema import Config
from src.training.run import fit
from tests.runs.commands import SHARED_DATA

NEED_A_PATH = ("text", "lines")
EMBEDDED = ("hello", "pydoc")
IN_THE_FOLDER = ("names",)  # tests/test_studies.py trains on the other three
TRAINED = (*EMBEDDED, *NEED_A_PATH, *IN_THE_FOLDER)


def composed(name: str, folder: Path, *overrides: str) -> Config:
    (folder / "own.txt").write_text("anna\nbert\ncarl\ndora\nemil\nfrida\n" * 60)
    path = [f"data.path={folder / 'own.txt'}"] if name in NEED_A_PATH else []
    config = to_config(compose([f"data={name}", *path, f"name={name}", f"runs={folder / 'runs'}", *overrides]))
    assert errors_in_config(config) == []
    assert config.data.name == name
    assert config.model.readout == ("identity" if name == "hello" else "linear")
    return config  # type: ignore[no-any-return]


def test_a_corpus_composes_with_a_fitting_model(tmp_path: Path) -> None:
    for name in set(groups()["data"]) - set(TRAINED):
        composed(name, tmp_path)


@pytest.mark.parametrize("name", TRAINED)
def test_a_corpus_at_hand_trains_two_steps(name: str, tmp_path: Path) -> None:
    small = ["trainer.max_steps=2", "trainer.limit_val_batches=1", "callbacks=none", "logger=none"]
    config = composed(name, tmp_path, *small, *([f"data.root={SHARED_DATA}"] if name in IN_THE_FOLDER else []))
    if name in IN_THE_FOLDER and not SHARED_DATA.exists():
        pytest.skip("the corpora are not beside this checkout (../shared/data)")
    record = json.loads((fit(config, {"command": "test", "overrides": []}) / "run.json").read_text())
    assert (record["status"], record["steps"]) == ("done", 2)
