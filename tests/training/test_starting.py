"""`init_from=`: what the old model knew the new one computes, in any implementation; what is new it is born with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from src import load
from src.config.compose import with_sizes_of_source
from src.config.schema import DataConfig
from src.data.corpus import open_corpus
from src.errors import UserError
from src.models.language_model import build_model
from src.sweeps.sweep import errors_here
from src.training.run import source_of, start_from
from tests.fabricated_run import MODELS, configuration, fabricate
from tests.runs.commands import refused_here, run

SAME = [(name, name) for name in MODELS] + [("manual", "stacked"), ("cell", "manual"), ("stacked", "cell")]


@pytest.mark.parametrize("added", ["", "Ωψ"])
@pytest.mark.parametrize(("old", "new"), SAME)
def test_training_starts_from_the_old_model_s_logits_and_with_new_ones_for_new_characters(tmp_path, old, new, added):
    folder = fabricate(tmp_path / "run", old)
    vocabulary = load(folder).vocabulary.extend(added)
    config = configuration(new, init_from=str(folder))
    source = source_of(config)
    assert source is not None
    torch.manual_seed(0)
    model = build_model(config.model, len(vocabulary)).eval()
    record = start_from(model, source, vocabulary)
    known = len(source.vocabulary)
    ids = torch.randint(known, (20, 3))
    torch.testing.assert_close(model(ids)[0][..., :known], source.model(ids)[0], rtol=0, atol=1e-5)
    assert (record["model"], record["step"], record["characters_added"]) == (old, 7, list(added))
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == [name for name, _ in model.named_parameters() if "bias_hh" in name and config.model.single_bias]
    if added:  # the new ones differ from one another and from zero: they are as a new model has them
        fresh = model(torch.tensor([[known], [known + 1]]))[0]
        assert not torch.allclose(fresh[0], fresh[1])


def test_sizes_that_do_not_fit_are_refused_by_name(tmp_path):
    folder = fabricate(tmp_path / "run")
    sizes = {"model.hidden_size": 14, "model.nonlinearity": "relu"}
    config = configuration("manual", init_from=str(folder), **sizes)
    with pytest.raises(UserError) as told:
        source_of(config)
    assert ["model.hidden_size=14" in message for message in told.value.messages] == [True, False]
    with pytest.raises(UserError, match="cell, stacked, manual have the same weights"):
        source_of(configuration("lstm", init_from=str(folder)))


def test_the_command_line_gets_the_sizes_of_the_source_where_it_gives_none(tmp_path):
    folder = fabricate(tmp_path / "run, old", "manual", **{"data.encoding": "bytes"})
    words = [f"init_from={folder}", "data=text", "model=stacked", "model.num_layers=2"]
    assert with_sizes_of_source(words) == [
        *words, "model.hidden_size=13", "model.nonlinearity=tanh", "model.readout=linear", "data.encoding=bytes"
    ]  # fmt: skip
    alone = (folder / "checkpoints" / "best.ckpt").rename(tmp_path / "alone.ckpt")
    assert "model=manual" in with_sizes_of_source([f"init_from={alone}"])
    assert "model=manual" in with_sizes_of_source([f"init_from=choice({alone},{folder})"])  # as the first, in a sweep
    assert with_sizes_of_source(["model=cell"]) == ["model=cell"]


def test_a_sweep_checks_its_text_with_the_vocabulary_of_the_weights(tmp_path):
    (tmp_path / "new.txt").write_text("The rain: Ω\n" * 200)
    words = {"init_from": str(fabricate(tmp_path / "run")), "data.path": str(tmp_path / "new.txt")}
    jobs = [configuration("manual", **words, **{"data.unknown": rule}) for rule in ("extend", "error", "error")]
    assert ["'Ω'" in error for error in errors_here(jobs)] == [True]


@pytest.mark.slow
def test_a_run_goes_on_from_another_on_other_text_and_its_record_says_so(tmp_path):
    old = fabricate(tmp_path / "old")
    (tmp_path / "other.txt").write_text("Ωmega it rains\n" * 200)
    words = (f"init_from={old}", "data=text", "data.path=other.txt", "model=stacked", "callbacks=none")
    words += ("trainer.max_epochs=1",)
    said = refused_here(*words, "name=new", cwd=tmp_path)
    assert "data.unknown=extend" in " ".join(said)
    assert not (tmp_path / "runs").exists()
    run(*words, "name=new", "data.unknown=extend", cwd=tmp_path, timeout=240)
    (folder,) = (tmp_path / "runs" / "new").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["init_from"]["path"].startswith(str(old))
    assert record["init_from"]["characters_added"] == ["g", "m", "Ω"]
    assert record["model"] == "stacked"
    # Neither resuming nor evaluating asks for the old run again
    old.rename(tmp_path / "gone")
    run(f"resume={folder}", "trainer.max_epochs=2", cwd=tmp_path, timeout=240)
    found = json.loads(run(f"run={folder}", "format=json", cwd=tmp_path, module="src.evaluate"))
    assert found["characters"] == record["data_provenance"]["transitions"]["val"]


def test_the_tutorial_s_pair_on_a_text_s_weights_adds_its_symbols_or_says_how(tmp_path):
    known = load(fabricate(tmp_path / "run")).vocabulary
    config = DataConfig("hello", input="hexΩ", target="exΩh", symbols="hexΩ")
    with pytest.raises(UserError, match=r"Ω.*data.unknown="):
        open_corpus(config, known)
    assert open_corpus(replace(config, unknown="extend"), known).vocabulary == known.extend("xΩ")
