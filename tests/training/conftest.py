"""A small run on a text."""

from pathlib import Path

import pytest

from src.config.checks import errors_in_config
from src.config.compose import compose, to_config
from tests.runs.commands import PLAIN

SMALL = ("model.hidden_size=6", "data.seq_len=5", "data.batch_size=3", "data.offset=random", "trainer.max_epochs=1",
         "callbacks=none", "logger=none", "name=small", "trainer.threads=1")  # fmt: skip


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 10)
    small = ("data=text", f"data.path={text}", "model=stacked", *PLAIN, *SMALL)

    def make(*overrides: str):
        words = {word.partition("=")[0]: word for word in (*small, *overrides)}
        config = to_config(compose(list(words.values())))
        assert errors_in_config(config) == []
        return config

    return make
