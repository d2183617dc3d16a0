"""docs/your_own_cell.md is executed: its files are written, its commands run (shortened), its backward checked."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys

import pytest
from torch.autograd.gradcheck import GradcheckError

from src.config.schema import ModelConfig
from src.errors import UserError
from src.models.language_model import build_model
from tests.runs.commands import ROOT, only_run, refused, run

PAGE = (ROOT / "docs" / "your_own_cell.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)).splitlines()
SHORT = ("trainer.limit_train_batches=2", "trainer.max_epochs=1", "model.hidden_size=8", "callbacks=none")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files of the page and a text, from which `leaky` can be imported."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "my.txt").write_text("".join(f"{n} bottles of beer on the wall\n" for n in range(200)))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("leaky", None)


def commands(beginning: str) -> list[list[str]]:
    """Return the arguments of the page's commands that begin so."""
    return [shlex.split(line)[3:] for line in COMMANDS if line.startswith(beginning)]


def test_the_backward_of_the_page_passes_its_checks_and_a_wrong_line_does_not(folder, capsys):
    script = folder / "leaky_backward.py"
    runpy.run_path(str(script))
    (difference,) = re.findall(r"gradcheck passes; dW differs from autograd's by (\S+)", capsys.readouterr().out)
    assert float(difference) < 1e-12
    source = script.read_text()
    wrong = source.replace("(1 - ctx.a) * g_t + delta[t] @ W", "delta[t] @ W")
    assert wrong != source
    script.write_text(wrong)
    with pytest.raises(GradcheckError):
        runpy.run_path(str(script))


@pytest.mark.slow
def test_the_cell_of_the_page_trains_is_used_and_resumes(folder):
    assert len(FILES["leaky.py"].splitlines()) <= 30
    first, leak, sweep = commands("python -m src.train --config-dir")
    run(*first, *SHORT, cwd=folder)
    trained = only_run(folder / "runs" / "text_leaky")
    record = json.loads((trained / "run.json").read_text())
    assert (record["status"], record["model"]) == ("done", "leaky")
    V = record["vocab_size"]
    assert record["parameters"] == 8 * V + 8 * 8 + 8 + V * 8 + V  # U, W, b and the readout's V, c
    run(*leak, *SHORT, "runs=other", cwd=folder)
    assert "leak: 0.2" in (only_run(folder / "other") / "config.yaml").read_text()
    run(*sweep, *SHORT, cwd=folder)
    assert len(list((folder / "runs" / "sweeps").rglob("run.json"))) == 2
    samples, (evaluate,), (resume,), (source,) = (
        commands(f"python -m src.{name}") for name in ("sample r", "evaluate r", "train r", "train i")
    )
    for sample in samples:
        assert len(run(f"run={trained}", *sample[1:], cwd=folder, module="src.sample")) >= 200
    assert "leaky" in run(f"run={trained}", *evaluate[1:], cwd=folder, module="src.evaluate")
    trust = "trust=leaky.LeakyRNN"
    assert resume == ["resume=RUN", "trainer.max_epochs=20", trust]
    for stored in (f"resume={trained}", f"rerun={trained}"):  # a run of one's own is no exception
        assert trust in refused(stored, cwd=folder)[0]
    told = refused(f"run={trained}", "explain.input=to", trust, cwd=folder, module="src.explain")[0]
    assert "its equations are those of leaky; explain knows the networks of cell, stacked, manual" in told
    run(f"resume={trained}", "trainer.max_epochs=2", trust, cwd=folder)
    assert json.loads((trained / "run.json").read_text())["steps"] == 2 * record["steps"]
    run(f"rerun={trained}", "runs=again", trust, cwd=folder)
    run(f"init_from={trained}", *source[1:], *SHORT, "runs=from", cwd=folder)
    assert "leak: 0.5" in (only_run(folder / "from") / "config.yaml").read_text()


def test_keys_that_a_cell_of_ones_own_lacks_and_a_missing_class_are_refused(folder):
    config = ModelConfig("leaky", "leaky.LeakyRNN", hidden_size=8, options={"leak": 0.25})
    assert build_model(config, 4, trust="leaky.LeakyRNN").recurrence.leak == 0.25
    config.num_layers, config.options = 2, {"lek": 0.25}
    told = r"(?s)model\.options\.lek: .*did you mean leak\?.*model\.num_layers=2 .*LeakyRNN"
    with pytest.raises(UserError, match=told):
        build_model(config, 4, trust="leaky.LeakyRNN")
    overrides = ("--config-dir", "my_conf", "model=leaky", "data=text", "data.path=my.txt", *SHORT)
    assert "leaky.Nobody" in refused(*overrides, "model._target_=leaky.Nobody", cwd=folder)[0]
    assert not (folder / "runs").exists()
