"""`make gpu`: whole on a CUDA GPU; elsewhere the same program at tiny sizes on the CPU, and the line that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.gpu import run

NO_GPU = "torch sees no CUDA GPU on this machine; on one that has it: make gpu"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this is about machines without a GPU")
def test_without_a_gpu_every_part_of_the_program_runs_on_the_cpu(tmp_path: Path, capsys):
    assert run.main(["out=" + str(tmp_path / "out"), "device=cpu"]) == 0, capsys.readouterr().out
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert found.keys() == set("abcde")
    assert all(part["ok"] and part["torch"] == torch.__version__ for part in found.values())
    assert {one["error_graph"] for one in found["a"]["models"].values()} == {0.0}
    assert all(case["to_the_bit"] for case in found["b"]["cases"].values())
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert all(word in summary for word in ("| manual | 0.0e+00", "| transformer |", "| tiny_shakespeare_10min |"))
    torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this is about machines without a GPU")
def test_without_a_gpu_make_gpu_says_so_in_one_line(tmp_path: Path, capsys):
    assert run.main([f"out={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.soak
@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
def test_on_a_gpu_every_part_is_ok(tmp_path: Path):
    assert run.main([f"out={tmp_path / 'out'}"]) == 0
