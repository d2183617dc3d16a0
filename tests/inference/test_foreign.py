"""A run folder that somebody else has made: nothing in it is executed, unpacked without a limit, or waited for."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from src import load
from src.config.compose import compose, stored_config, to_config
from src.config.schema import to_plain
from src.errors import UserError
from src.reports.runs import read_run
from src.training.run import resume
from tests.fabricated_run import fabricate
from tests.runs.commands import refused_here, run

PLANTED = """open("executed", "w").close()
from src.models.cell import CellRNN
class Own(CellRNN): pass
"""
TRUST = "trust=shared.x.Own"
NEW = ("data=text", "data.path=shared/text.txt", "trainer.max_steps=1", "callbacks=none", "runs=new")
READERS = [
    ("sample", "run=shared", "length=3"),
    ("score", "run=shared", "text=the rain"),
    ("evaluate", "run=shared"),
    ("export", "run=shared", "format=safetensors"),
    ("sample", "checkpoint=shared/weights.safetensors", "length=3"),
    ("train", "init_from=shared", *NEW),
    ("train", "init_from=shared/weights.safetensors", *NEW),
    ("train", "rerun=shared", "runs=new", "trainer.max_steps=1"),
    ("train", "resume=shared"),
]
TRUSTED = [READERS[number] for number in (0, 3, 5, 7)]  # one of each way to a class


def respell(folder: Path, **model: object) -> None:
    """Change what config.yaml and the checkpoints of a run say about its model."""
    for file in folder.glob("checkpoints/*"):
        content = torch.load(file, weights_only=True)
        content["unroll"]["config"]["model"] |= model
        torch.save(content, file)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `shared`, whose files all name the class of a module beside them."""
    here = tmp_path_factory.mktemp("here")
    folder = fabricate(here / "shared", "cell")
    (folder / "x.py").write_text(PLANTED)
    respell(folder, _target_="shared.x.Own")
    words = ["data=text", f"data.path={folder}/text.txt", "callbacks=none", "model._target_=shared.x.Own"]
    config = to_config(compose([*words, "model.num_layers=2", "model.hidden_size=13"]))
    (folder / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))
    run("run=shared", "format=safetensors", "output=shared/weights.safetensors", TRUST, cwd=here, module="src.export")
    (here / "executed").unlink()
    return here


@pytest.mark.parametrize("reader", READERS, ids=lambda words: " ".join(words[:2]))
def test_a_class_that_a_stored_file_names_is_imported_only_if_the_command_names_it(here, reader):
    entry, *words = reader
    (line,) = refused_here(*words, cwd=here, module=f"src.{entry}")
    assert TRUST in line
    assert not (here / "executed").exists()
    if reader in TRUSTED:
        run(*words, TRUST, cwd=here, module=f"src.{entry}")
        (here / "executed").unlink()


def test_neither_load_nor_a_report_imports_it_and_a_path_is_no_class(here, tmp_path):
    with pytest.raises(UserError, match=TRUST):
        load(here / "shared", trust="x.Own")
    run("shared", cwd=here, module="src.report")
    assert not (here / "executed").exists()
    folder = fabricate(tmp_path / "run", "cell")
    respell(folder, _target_="../x.Own")
    with pytest.raises(UserError, match="is no class"):
        load(folder, trust="../x.Own")


def refusals(folder: Path) -> list[str]:
    """Return what each reader of a run's records says against one."""
    found = [read_run(folder).problem]
    for read in (stored_config, resume):
        with pytest.raises(UserError) as refusal:
            read(folder)
        found.append(str(refusal.value))
    return found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &a [*a]\n", "alias"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n", "alias"),
        ("- " * 100_000 + "\n", "nested"),
        ("a: " + "[" * 100_000, "nested"),
    ],
    ids=["recursive", "exploding", "deep", "deep flow"],
)  # fmt: skip
def test_a_configuration_that_unpacks_without_end_is_refused_by_every_reader(tmp_path, text, reason):
    folder = fabricate(tmp_path / "run")
    (folder / "config.yaml").write_text(text)
    for said in refusals(folder):
        assert reason in said


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_reported_and_not_waited_for(tmp_path, make):
    folder = fabricate(tmp_path / "run")
    for name in ("metrics.jsonl", "config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        if "/" not in name:
            assert f"{name} cannot be read: it is a folder, a pipe" in read_run(folder).problem
        if name == "metrics.jsonl":
            with pytest.raises(UserError, match=r"metrics\.jsonl is a folder, a pipe"):
                resume(folder)
    assert all("a folder, a pipe" in said for said in refusals(folder))
    for path, reason in ((folder, "is a folder, a pipe"), (folder / "config.yaml", "a pipe or a device|is no run")):
        with pytest.raises(UserError, match=reason):
            load(path)


def test_a_checkpoint_that_would_unpack_to_more_than_its_size_is_refused_before(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(20_000_000))
    with pytest.raises(UserError, match="would unpack to 20,000,000 bytes"):
        load(tmp_path / "bomb.ckpt")


def test_weights_that_are_nan_or_of_another_shape_are_refused_in_words(tmp_path):
    folder = fabricate(tmp_path / "run")
    for change, reason in (
        ({"hidden_size": 12}, r"recurrence.layers.0.weight is \(13, \d+\), expected \(12, \d+\)"),
        ({"hidden_size": 10**6}, "hidden_size=1000000 need more weights"),
        ({"hidden_size": 13, "num_layers": 1}, r"layers.1.weight is \(13, 26\), expected no such weights"),
    ):
        respell(folder, **change)
        with pytest.raises(UserError, match=reason):
            load(folder)
    respell(folder, num_layers=2)
    file = folder / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["state_dict"]["model.readout.bias"][0] = float("nan")
    torch.save(content, file)
    with pytest.raises(UserError, match=r"best.ckpt: readout.bias holds nan"):
        load(folder)
