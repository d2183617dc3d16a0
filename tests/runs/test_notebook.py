"""docs/notebook.ipynb: every cell runs, in a kernel of its own, and what is stored is what it shows, and small."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("nbclient") is None, reason="the extra notebook is not installed"),
]


def outputs(notebook):
    """What each code cell shows: the kinds of its outputs, and their plain text."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kinds = [{kind for one in cell["outputs"] for kind in one.get("data", [one["output_type"]])} for cell in cells]
    return kinds, ["".join("".join(one.get("text", "")) for one in cell["outputs"]) for cell in cells]


def test_every_cell_runs_and_shows_the_kind_of_output_that_is_stored(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored, shown = outputs(notebook)
    for cell in notebook["cells"]:  # the same cells, with shorter runs
        shorter = re.sub(r"(max_steps|check_interval)=(\d+)0", r"\1=\2", cell["source"])
        cell["source"] = shorter.replace("range(3)", "range(2)")
    resources = {"metadata": {"path": str(tmp_path)}}  # runs/ is made there
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
    found, printed = outputs(notebook)
    assert found == stored
    units = (
        {line.split(":")[0] for line in "".join(one).splitlines() if "baselines (" in line} for one in (shown, printed)
    )
    assert next(units) == next(units) != set()
    everything = "\n".join(printed)
    assert "did you mean model.hidden_size?\nlr: there is no such key; did you mean optimizer.lr?" in everything
    assert "in a sentence: val/cross_entropy of init" in everything
    starts = ("largest difference", "stacked ", "cell ")
    differences = [float(line.split()[-1]) for line in everything.splitlines() if line.startswith(starts)]
    assert len(differences) == 3
    assert max(differences) < 1e-4
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/*/run.json")]
    assert [record["status"] for record in records] == ["done"] * 7


def test_the_stored_notebook_is_small_and_names_nothing_of_the_machine_that_made_it():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    silent = [i for i, cell in enumerate(cells) if not cell["outputs"]]
    assert silent == [0, 3]  # the imports, and the cell that captures what nine runs print
    everything = [output for cell in cells for output in cell["outputs"]]
    shown = [
        "".join(part.get(key, ""))
        for one in everything
        for part in (one, one.get("data", {}))
        for key in ("text", "text/plain", "text/html")
    ]
    assert {one["output_type"] for one in everything} <= {"stream", "display_data", "execute_result"}  # no error
    assert any(shown)
    assert [text for text in shown if re.search(r"(?<![\w.:/<-])/\w+/\w", text)] == []  # no absolute path
