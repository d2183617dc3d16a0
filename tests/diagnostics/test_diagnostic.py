"""What all diagnostics promise: when they look, that a look leaves no trace, and what they write as text."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger

from src.config.schema import Config, DataConfig, DiagnosticConfig, TextSamplesConfig, TrainerConfig, to_plain
from src.data.batching import LineSplit, TextSplit, Window
from src.data.vocabulary import Vocabulary
from src.diagnostics import text
from src.diagnostics.diagnostic import Diagnostic, Diagnostics, EvalView, undisturbed
from src.diagnostics.loggers import literally, wrapped
from src.diagnostics.tensorboard import first_columns, hparams_of, row_name
from src.training.module import TextData


def test_a_look_leaves_modes_and_generators_as_they_were():
    module = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2))
    module[1].eval()  # a part that was frozen stays so
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.inference_mode(), undisturbed(module):
        assert not any(part.training for part in module.modules())
        kept = module(torch.rand(3, 2))
        assert not kept.is_inference()  # it may be kept and changed after a validation
    assert [part.training for part in module.modules()] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), before)


class One(Diagnostic):
    name, kept = "one", ("found",)
    found = 0


class Other(Diagnostic):
    name = "other"


def test_what_a_checkpoint_keeps_of_diagnostics_comes_back_to_the_one_of_that_name():
    before = Diagnostics([One(DiagnosticConfig()), Other(DiagnosticConfig())])
    before.parts[0].found, before.parts[1].drawn_at = 7, 30
    after = Diagnostics([Other(DiagnosticConfig())])  # one was switched off since
    after.load_state_dict(before.state_dict())
    assert (after.parts[0].validations, after.parts[0].drawn_at) == (0, 30)
    again = Diagnostics([One(DiagnosticConfig())])
    again.load_state_dict(before.state_dict())
    assert again.parts[0].found == 7


def passage(split: TextSplit | LineSplit, length: int) -> list[Window]:
    corpus = SimpleNamespace(splits={"val": split}, vocabulary=SimpleNamespace(symbols=()))
    data = SimpleNamespace(corpus=corpus, config=SimpleNamespace(window=(8, 4)))
    view = EvalView(
        SimpleNamespace(datamodule=data, global_step=0, loggers=[]), SimpleNamespace(model=None, averaged=None)
    )
    return view.passage(length)


def test_the_passage_of_a_text_is_its_beginning_and_of_a_list_its_items_without_padding():
    read = torch.cat([window.inputs[:, 0] for window in passage(TextSplit("val", np.arange(100)), 61)])
    assert read.tolist() == list(range(61))
    found = passage(LineSplit("val", np.array([0, 1, 2, 0, 3, 0, 4, 5, 6, 0]), 0), 100)
    assert sorted(window.targets[:, 0].tolist() for window in found) == [[1, 2, 0], [3, 0], [4, 5, 6, 0]]
    assert all(window.starts for window in found)
    long = passage(LineSplit("val", np.array([0, *[1] * 11, 0]), 0), 100)  # goes on in a second window
    assert [(len(window.inputs), window.starts) for window in long] == [(8, True), (4, False)]


def test_the_warm_up_of_a_validation_is_read_for_a_carried_state_alone_and_takes_no_place_in_its_window():
    corpus = SimpleNamespace(splits={"val": TextSplit("val", np.arange(400) % 5)}, vocabulary=Vocabulary.of("a"))
    data = TextData(corpus, DataConfig("text", seq_len=8, evaluation_streams=4, evaluation_warmup=16), 0)
    one = {"precision_plugin": SimpleNamespace(forward_context=contextlib.nullcontext)}
    fresh: list[bool] = []

    def model(ids, state):
        fresh.append(state is None)
        return torch.zeros(*ids.shape, 5), ids

    trainer = SimpleNamespace(datamodule=data, global_step=1, loggers=[], **one)
    config = SimpleNamespace(trainer=TrainerConfig())
    view = EvalView(trainer, SimpleNamespace(model=model, averaged=None, device="cpu", config=config))
    for carry, first in ((True, 24), (False, 8)):
        found = view.readings(10**4, carry)
        assert [len(reading.targets) for reading in found] == [first, *[8] * 11, 4]
        nats, characters = text.sums_by_position(found)
        assert (len(nats), characters.sum()) == (8, 399)  # each of the text once
        assert fresh[-13:] == [True, *[not carry] * 12]
    assert len(view.windows().window(0, 0).inputs) == 8  # what the gradient is measured in
    short = TextData(corpus, DataConfig("text", seq_len=64, evaluation_streams=20, evaluation_warmup=16), 0)
    assert len(short.val_windows(warms=False).window(0, 1).inputs) == 64  # in 20 streams they would have 19 steps


def test_a_sample_is_written_for_each_store_that_takes_texts(monkeypatch):
    written = []
    monkeypatch.setattr(text, "log_text", lambda *given: written.append(given[1]))
    monkeypatch.setattr(text.TextSamples, "_sample", lambda *_: "a")
    model = SimpleNamespace(parameters=lambda: iter([torch.zeros(1)]))
    part = text.TextSamples(TextSamplesConfig(temperatures=[0.5]))
    for logger in (MLFlowLogger, WandbLogger, CSVLogger):  # the last takes numbers alone
        trainer = SimpleNamespace(loggers=[logger.__new__(logger)])
        part.look(SimpleNamespace(step=1, trainer=trainer, writers=[], model=model))
    assert written == ["samples/temperature_0.5"] * 2


def test_a_value_is_short_text_in_all_runs():
    plain = {"seed": 3, "optimizer": {"lr": 0.1, "eps": 1e-8, "betas": [0.9, 0.99]}, "callbacks": {"x": 1}}
    bare = {"seed": None, "optimizer": {"lr": 1, "eps": None, "betas": None}, "callbacks": {}}
    full, empty = dict(hparams_of(plain)), dict(hparams_of(bare))
    assert full == {"seed": "3", "optimizer.lr": "0.1", "optimizer.eps": "1e-08", "optimizer.betas": "[0.9, 0.99]"}
    assert empty == {"seed": "null", "optimizer.lr": "1", "optimizer.eps": "null", "optimizer.betas": "null"}


def test_a_row_is_named_by_what_is_mostly_compared_its_overrides_and_its_folder(tmp_path):
    config = Config(seed=1)
    config.model.name, config.model.num_layers, config.model.hidden_size = "cell", 2, 8
    config.optimizer.name, config.optimizer.lr = "adam", 0.002
    mostly = "cell 2x8 adam lr=0.002 seed=1"
    of_a_sweep = {"label": "model.init=identity", "key": "0123"}
    for record, name, row in (
        ({"overrides": ["data=text"]}, "2026-11-26", f"{mostly} data=text 2026-11-26"),
        (of_a_sweep, "0123", f"{mostly} model.init=identity 0123"),
        (of_a_sweep, "init-identity-0123", f"{mostly} init-identity-0123"),
    ):
        assert row_name(config, record, tmp_path / name) == row


def test_the_table_shows_at_first_what_differs_in_the_sweep_else_the_overrides():
    known = dict(hparams_of(to_plain(Config())))
    given = ["model=cell", "model.init=identity", "seed=3", "callbacks=none"]
    assert first_columns({"overrides": given}, known)[:3] == ["model.name", "model.init", "seed"]
    differs = first_columns({"overrides": given, "label": "model.init=identity seed=3"}, known)
    assert differs == ["model.init", "seed", "model.name", "model.hidden_size", "model.num_layers"]


def test_long_lines_of_a_sample_are_broken_and_nothing_else_of_it_is_changed():
    text = "to be " * 30 + "\n" + "x" * 170 + "\n  short, with blanks  \n\n"
    shown = wrapped(text)
    assert max(map(len, shown.split("\n"))) == 80
    assert shown.replace("\n", "") == text.replace("\n", "")
    assert all(word in ("to", "be", "") for word in shown.split("\n")[0].split(" "))  # no word is broken
    assert shown.endswith("\n  short, with blanks  \n\n")


@pytest.mark.parametrize("text", ["<b>bold</b> **bold** $x$", "```\ncode\n```", "a ````` b", "", "\n\n# no heading"])
def test_a_sample_is_shown_as_it_is(text):
    import html

    from markdown import markdown

    shown = markdown(literally(text), extensions=["markdown.extensions.tables", "markdown.extensions.fenced_code"])
    assert shown.startswith("<pre><code>")
    inside = html.unescape(shown.removeprefix("<pre><code>").removesuffix("</code></pre>"))
    assert inside.strip("\n") == text.strip("\n")
