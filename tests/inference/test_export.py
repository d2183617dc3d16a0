"""What is exported computes what the model computes, and says of itself all that is needed to use it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src import load
from src.config.schema import to_plain
from src.errors import UserError
from src.inference import export
from src.inference.export import export_to
from src.inference.incremental import parts_of
from src.inference.load import TrainedModel
from tests.fabricated_run import MODELS, fabricate

SOAKED = [pytest.param(name, marks=pytest.mark.soak) for name in ("manual", "cell", "stacked")]


@pytest.fixture
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> TrainedModel:
    return load(fabricate(tmp_path / "run", getattr(request, "param", "manual"), loud=1.5))


def carried(trained: TrainedModel, steps: int, batch: int) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """ids (steps, batch), the model's logits over them in one window, and the state of zeros it starts from."""
    ids = np.random.default_rng(0).integers(0, len(trained.vocabulary), (steps, batch))
    logits, state = trained.model(torch.from_numpy(ids))
    return ids, logits.numpy(), [np.zeros_like(part.numpy()) for part in parts_of(state)]


@pytest.mark.slow
@pytest.mark.parametrize("trained", [SOAKED[0], "lstm"], indirect=True)
def test_onnxruntime_agrees_over_100_carried_steps_at_any_batch_size(trained):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    (path,), difference = export_to(trained, "onnx")
    assert difference < 1e-5
    session = runtime.InferenceSession(path)
    names = ["h", "c"] if trained.config.model.name == "lstm" else ["h"]
    assert [each.name for each in session.get_inputs()] == ["ids", *names]
    assert [each.name for each in session.get_outputs()] == ["logits", *(f"{name}_n" for name in names)]
    for batch in (1, 5):
        ids, expected, state = carried(trained, 100, batch)
        for x_t, wanted in zip(ids, expected, strict=True):
            found, *state = session.run(None, {"ids": x_t, **dict(zip(names, state, strict=True))})
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"Loop", "Scan", "RNN", "LSTM", "GRU"}
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["vocabulary"])["symbols"] == list(trained.vocabulary.symbols)
    assert json.loads(metadata["config"]) == to_plain(trained.config)


@pytest.mark.slow
@pytest.mark.parametrize("trained", [*SOAKED[1:], "gru"], indirect=True)
def test_torch_export_agrees_and_needs_none_of_our_code_to_run(trained):
    (path,), difference = export_to(trained, "torch")
    assert difference < 1e-5
    extra = {"vocabulary": ""}
    step = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["vocabulary"])["symbols"] == list(trained.vocabulary.symbols)
    ids, expected, state = carried(trained, 20, 1)
    parts = [torch.from_numpy(part) for part in state]
    for x_t, wanted in zip(ids, expected, strict=True):
        found, *parts = step(torch.from_numpy(x_t), *parts)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("trained", MODELS, indirect=True)
def test_safetensors_come_back_to_the_bit_and_load_as_a_model(trained):
    safetensors = pytest.importorskip("safetensors.torch")
    (path, beside), _ = export_to(trained, "safetensors")
    weights, state = safetensors.load_file(path), trained.model.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)
    assert json.loads(beside.read_text())["config"] == to_plain(trained.config)
    assert beside.stat().st_mode == path.stat().st_mode
    again = load(path)
    assert again.sample("day", length=40) == trained.sample("day", length=40)
    assert again.score("hey, day").bits == trained.score("hey, day").bits


def test_a_run_trained_as_manual_is_exported_and_loaded_as_torch_s_rnn(trained):
    safetensors = pytest.importorskip("safetensors.torch")
    (path, _), _ = export_to(trained.in_implementation("stacked"), "safetensors")
    weights = safetensors.load_file(path)
    rnn = torch.nn.RNN(len(trained.vocabulary), 13, 2)
    rnn.load_state_dict({k.removeprefix("recurrence.rnn."): v for k, v in weights.items() if "rnn" in k})
    ids, expected, _ = carried(trained, 30, 2)
    hidden, _ = rnn(torch.nn.functional.one_hot(torch.from_numpy(ids), len(trained.vocabulary)).float())
    logits = hidden @ weights["readout.weight"].T + weights["readout.bias"]
    np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_a_file_goes_where_it_is_asked_to_and_nothing_half_made_stays(trained, tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    (path, beside), _ = export_to(trained, "safetensors", str(tmp_path / "mine.safetensors"))
    assert (path, beside) == (tmp_path / "mine.safetensors", tmp_path / "mine.json")
    (tmp_path / "run" / "own.json").write_text("{}")
    with pytest.raises(UserError, match=r"own.json is no file of an export"):
        export_to(trained, "safetensors", str(tmp_path / "run" / "own.safetensors"))
    monkeypatch.setattr(export, "AGREE", -1.0)  # no agreement is good enough
    with pytest.raises(UserError, match="differs from the model"):
        export_to(trained, "torch", str(tmp_path / "never.pt2"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.json", "mine.safetensors", "run"]
