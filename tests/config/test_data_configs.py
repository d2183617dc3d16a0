"""Every corpus of conf/data composes to a sound configuration; other tests train on each but data=names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.config.checks import errors_in_config
from src.config.compose import compose, to_config
from src.config.overrides import groups
from src.training.run import fit
from tests.runs.commands import SHARED_DATA


def test_a_corpus_composes_with_a_fitting_model(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("ab\n" * 99)
    for name in groups()["data"]:
        path = [f"data.path={tmp_path / 'own.txt'}"] if name in ("text", "lines") else []
        config = to_config(compose([f"data={name}", *path]))
        assert errors_in_config(config) == []
        assert (config.data.name, config.model.readout) == (name, "identity" if name == "hello" else "linear")


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the corpora are not beside this checkout (../shared/data)")
def test_names_train_two_steps_and_a_share_of_less_than_a_window_validates_on_one(tmp_path: Path) -> None:
    words = ["data=names", f"data.root={SHARED_DATA}", "trainer.max_steps=2", "trainer.limit_val_batches=0.001"]
    config = to_config(compose([*words, "callbacks=none", "logger=none", f"runs={tmp_path}"]))
    assert json.loads((fit(config, {"command": "", "overrides": []}) / "run.json").read_text())["steps"] == 2
