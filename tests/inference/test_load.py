"""`from src import load`: what was trained comes back to the bit, from a folder or a file alone; nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src import load
from src.errors import UnknownCharacter, UserError
from tests.fabricated_run import MODELS, fabricate
from tests.runs.commands import environment


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_comes_back_to_the_bit_from_its_checkpoint_alone(tmp_path, model):
    folder = fabricate(tmp_path / "run", model)
    carried = (folder / "checkpoints" / "best.ckpt").rename(tmp_path / "elsewhere.ckpt")
    weights = torch.load(carried, weights_only=True)["state_dict"]
    trained = load(carried)
    state = trained.model.state_dict()
    assert {f"model.{name}" for name in state} == weights.keys()
    assert all(torch.equal(state[name], weights[f"model.{name}"]) for name in state)
    assert not trained.model.training
    assert trained.progress == {"step": 7, "epoch": 1}


def test_loading_imports_neither_hydra_nor_lightning_and_leaves_the_caller_s_generator(run):
    program = (
        "import sys, src; assert 'torch' not in sys.modules; import torch; from src import load;"
        "torch.manual_seed(5); load(sys.argv[1]); drawn = torch.rand(1);"
        "torch.manual_seed(5); assert drawn == torch.rand(1), 'drew from the generator of the caller';"
        "print([name for name in ('hydra', 'omegaconf', 'lightning') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(run)]
    printed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_best_is_taken_where_there_is_one_and_the_last_where_it_is_asked_for(tmp_path):
    folder = fabricate(tmp_path / "run")
    assert load(folder).path.name == "best.ckpt"
    assert load(folder, at="last").path.name == "last.ckpt"
    (folder / "checkpoints" / "best.ckpt").unlink()
    assert load(folder).path.name == "last.ckpt"
    with pytest.raises(UserError, match=r"has no best\.ckpt; it has last"):
        load(folder, at="best")


def test_a_run_that_was_killed_while_it_saved_gives_the_checkpoint_before(tmp_path):
    folder = fabricate(tmp_path / "run")
    checkpoints = folder / "checkpoints"
    (checkpoints / "best.ckpt").rename(checkpoints / "previous.ckpt")
    (checkpoints / "last.ckpt").write_bytes((checkpoints / "previous.ckpt").read_bytes()[:-100])
    assert load(folder).path.name == "previous.ckpt"
    with pytest.raises(UserError, match=r"last\.ckpt"):
        load(checkpoints / "last.ckpt")  # the file was named, and no other is taken for it


def test_what_is_no_model_is_refused_with_the_reason_and_the_way_out(tmp_path, run):
    empty, foreign, text = tmp_path / "empty", tmp_path / "foreign.ckpt", tmp_path / "notes.txt"
    empty.mkdir()
    torch.save({"state_dict": {}}, foreign)
    text.write_text("hello")
    none = fabricate(tmp_path / "none")
    for name in ("best", "last"):
        (none / "checkpoints" / f"{name}.ckpt").unlink()
    for path, reason in [
        (empty, "no run.json"),
        (none, "without a checkpoint"),
        (foreign, "not written by this program"),
        (text, "no checkpoint"),
        (tmp_path / "nothing", "no such file"),
        (run.parent, f"did you mean {run}"),
        (run / "checkpoints", f"did you mean {run}"),
        ("", "empty path"),
    ]:
        with pytest.raises(UserError, match=reason):
            load(path)


def test_a_checkpoint_that_lacks_a_part_is_told_with_the_part_and_the_way_out(tmp_path, run):
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    for spoilt, reason in (
        ({"unroll": content["unroll"]}, "state_dict"),
        (content | {"unroll": content["unroll"] | {"vocabulary": []}}, "configuration"),
    ):
        torch.save(spoilt, tmp_path / "spoilt.ckpt")
        with pytest.raises(UserError, match=rf"{reason}.*; name a run's folder, or a file of its checkpoints/"):
            load(tmp_path / "spoilt.ckpt")


def test_a_damaged_best_beside_a_whole_last_is_answered_with_the_last(tmp_path):
    folder = fabricate(tmp_path / "run")
    best = folder / "checkpoints" / "best.ckpt"
    whole = best.read_bytes()
    for damaged in (whole[:-100], whole[:3000] + b"damaged" + whole[3007:], b"", b"no checkpoint"):
        best.write_bytes(damaged)
        with pytest.raises(UserError, match="at=last"):
            load(folder)


def test_precision_is_that_of_the_run_unless_another_is_asked_for(tmp_path, run):
    double = fabricate(tmp_path / "double", **{"trainer.precision": "64-true"})
    assert next(load(double).model.parameters()).dtype is torch.float64
    assert next(load(run).model.parameters()).dtype is torch.float32
    assert next(load(run, precision="64-true").model.parameters()).dtype is torch.float64
    with pytest.raises(UserError, match="32-true, 64-true"):
        load(run, precision="half")


@pytest.mark.parametrize("model", MODELS)
def test_steps_carried_by_hand_and_plain_torch_give_the_model_s_own_logits(tmp_path, model):
    trained = load(fabricate(tmp_path / "run", model), precision="64-true")
    ids = torch.from_numpy(trained.vocabulary.encode("every day").astype("int64"))[:, None].repeat(1, 2)
    whole, _ = trained.model(ids, None)
    state = None
    for x_t, expected in zip(ids, whole, strict=True):
        logits, state = trained.step(x_t, state)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    one, _ = trained.step(int(ids[0, 0]))
    torch.testing.assert_close(one, whole[0, :1], rtol=0, atol=1e-12)
    rnn = trained.to_torch_rnn()
    assert type(rnn).__module__ == "torch.nn.modules.rnn"
    hidden, _ = rnn(torch.nn.functional.one_hot(ids, len(trained.vocabulary)).double())
    torch.testing.assert_close(trained.model.readout(hidden), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", ["cell", "stacked", "manual"])
def test_the_same_weights_give_the_same_logits_in_every_implementation_and_move_into_no_other_model(tmp_path, model):
    trained = load(fabricate(tmp_path / "run", model, **{"model.nonlinearity": "relu"}), precision="64-true")
    ids = torch.randint(len(trained.vocabulary), (9, 2))
    for name in ("cell", "stacked", "manual"):
        other = trained.in_implementation(name)
        assert other.config.model.name == name
        torch.testing.assert_close(other.model(ids)[0], trained.model(ids)[0], rtol=0, atol=1e-12)
    with pytest.raises(UserError, match="only cell, stacked, manual have the same weights"):
        trained.in_implementation("lstm")


def test_an_unseen_character_is_named_with_those_that_are_known(run):
    with pytest.raises(UnknownCharacter, match=r"'é'.*offset 4; .*the model knows"):
        load(run).sample("day é")


def test_letters_in_the_other_normal_form_are_named_with_the_form_that_the_model_knows(tmp_path):
    trained = load(fabricate(tmp_path / "nfd", text="cafe\u0301 noir " * 90))
    remedy = r"prompt has .*\u00e9.*in the form NFD: give unicodedata.normalize\('NFD'"
    with pytest.raises(UnknownCharacter, match=remedy):
        trained.sample("caf\u00e9")
    with pytest.raises(UnknownCharacter, match="the model knows"):
        trained.sample("caf\u00e9 z")
    with pytest.raises(UnknownCharacter, match="in the form NFC"):
        load(fabricate(tmp_path / "nfc", text="caf\u00e9 noir " * 90)).sample("cafe\u0301")


def test_a_model_of_lowercase_text_reads_any_case(tmp_path):
    trained = load(fabricate(tmp_path / "run", **{"data.lowercase": True}))
    assert trained.ids("The RAIN").tolist() == trained.ids("the rain").tolist()
    of_bytes = load(fabricate(tmp_path / "b", text="É é " * 90, **{"data.lowercase": True, "data.encoding": "bytes"}))
    assert of_bytes.ids("É").tolist() == of_bytes.vocabulary.encode("É").tolist()  # bytes: only ASCII, as in training
