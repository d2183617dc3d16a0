"""docs/your_own_cell.md is executed: its files are written, its commands given (shrunk), its backward checked."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest

from src.config.schema import ModelConfig
from src.errors import UserError
from src.models.language_model import build_model
from tests.runs.commands import ROOT, environment, only_run, refused, run

PAGE = (ROOT / "docs" / "your_own_cell.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)).splitlines()
SHRUNK = ("trainer.limit_train_batches=2", "trainer.max_epochs=1", "model.hidden_size=8", "callbacks=none")


@pytest.fixture
def folder(tmp_path):
    """Where a reader stands: the files of the page, and a text."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "my.txt").write_text("".join(f"{n} bottles of beer on the wall\n" for n in range(200)))
    return tmp_path


def commands(beginning: str) -> list[list[str]]:
    return [shlex.split(line)[3:] for line in COMMANDS if line.startswith(beginning)]


def test_the_page_has_its_parts_and_the_cell_has_30_lines():
    assert list(FILES) == ["leaky.py", "my_conf/model/leaky.yaml", "leaky_backward.py"]
    assert len(FILES["leaky.py"].splitlines()) <= 30
    assert len(COMMANDS) == 7


def test_the_backward_of_the_page_passes_its_checks_and_a_wrong_line_does_not(folder):
    def check() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "leaky_backward.py"]
        return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)

    assert commands("python leaky_backward.py")
    done = check()
    assert done.returncode == 0, done.stderr
    (difference,) = re.findall(r"gradcheck passes; dW differs from autograd's by (\S+)", done.stdout)
    assert float(difference) < 1e-12
    source = FILES["leaky_backward.py"]
    (folder / "leaky_backward.py").write_text(source.replace("(1 - ctx.a) * g_t + delta[t] @ W", "delta[t] @ W"))
    assert "GradcheckError" in check().stderr


@pytest.mark.slow
def test_the_cell_of_the_page_trains_is_used_and_goes_on(folder):
    first, leak, sweep = commands("python -m src.train --config-dir")
    run(*first, *SHRUNK, cwd=folder)
    trained = only_run(folder / "runs" / "text_leaky")
    record = json.loads((trained / "run.json").read_text())
    assert (record["status"], record["model"]) == ("done", "leaky")
    V = record["vocab_size"]
    assert record["parameters"] == 8 * V + 8 * 8 + 8 + V * 8 + V  # U, W, b and the readout's V, c
    run(*leak, *SHRUNK, "runs=other", cwd=folder)
    assert "leak: 0.2" in (only_run(folder / "other") / "config.yaml").read_text()
    run(*sweep, *SHRUNK, cwd=folder)
    assert len(list((folder / "runs" / "sweeps").rglob("run.json"))) == 2
    later = [command for name in ("sample", "evaluate", "train") for command in commands(f"python -m src.{name} r")]
    named = [[word.replace("RUN", str(trained)) for word in words] for words in later]
    assert len(named) == 3
    assert len(run(*named[0], cwd=folder, module="src.sample")) >= 200
    assert "leaky" in run(*named[1], cwd=folder, module="src.evaluate")
    run(*named[2][:-1], "trainer.max_epochs=2", cwd=folder)
    assert json.loads((trained / "run.json").read_text())["steps"] == 2 * record["steps"]


def test_what_is_wrong_with_a_cell_of_ones_own_is_told_in_words(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    words = {"_target_": "leaky.LeakyRNN", "hidden_size": 8, "readout": "linear", "num_layers": 1}
    assert build_model(ModelConfig(**words, options={"leak": 0.25}), 4).recurrence.leak == 0.25
    with pytest.raises(UserError) as told:
        build_model(ModelConfig(**words | {"num_layers": 2}, options={"lek": 0.25}), 4)
    assert told.value.messages == (
        "model.options.lek: LeakyRNN has no parameter of this name; did you mean leak?",
        "model.num_layers=2 is not used by LeakyRNN, which has input_size, hidden_size, leak",
    )
    words = ("--config-dir", "my_conf", "model=leaky", "data=text", "data.path=my.txt", *SHRUNK)
    assert "leaky.Nobody" in refused(*words, "model._target_=leaky.Nobody", cwd=folder)[0]
    assert not (folder / "runs").exists()
