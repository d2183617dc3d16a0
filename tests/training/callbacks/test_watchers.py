"""What all watchers promise: when they look, that a look leaves no trace, and what they write as words."""

from __future__ import annotations

import typing
from dataclasses import is_dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.config.schema import Config
from src.data.batching import Windows
from src.data.splits import LineSplit, TextSplit
from src.diagnostics.diagnostic import HOOKS, View, Watcher, Watching, is_power_of_four, passage, undisturbed
from src.diagnostics.hparams import LEFT_OUT, MAY_BE_NONE, flat, row_name
from src.diagnostics.tensorboard import literally


def test_draws_thin_out_by_fours():
    assert [n for n in range(100) if is_power_of_four(n)] == [1, 4, 16, 64]


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


def test_a_watcher_hears_of_every_step_only_where_its_cadence_counts_steps():
    gallery = SimpleNamespace()
    at_validations, at_steps = Watcher(gallery), Watcher(gallery, 10)
    assert "on_train_batch_start" in HOOKS
    assert Watching([at_validations, at_steps]).listeners["on_train_batch_start"] == [at_steps]


def test_what_a_checkpoint_keeps_of_watchers_comes_back_to_the_one_of_that_name():
    class One(Watcher):
        pass

    class Other(Watcher):
        pass

    before = Watching([One(SimpleNamespace()), Other(SimpleNamespace())])
    before.parts[0].validations, before.parts[1].drawn_at = 7, 30
    after = Watching([Other(SimpleNamespace())])  # One was switched off since
    after.load_state_dict(before.state_dict())
    assert (after.parts[0].validations, after.parts[0].drawn_at) == (0, 30)


def test_the_passage_of_a_text_is_its_beginning_and_of_a_list_its_items_without_padding():
    text = Windows(TextSplit("val", np.arange(50)), 4, 2)
    read = torch.cat([window.inputs[:, 0] for window in passage(text, 10)])
    assert read.tolist() == list(range(10))
    items = Windows(LineSplit("val", np.array([0, 1, 2, 0, 3, 0, 4, 5, 6, 0]), 0), 8, 3)
    found = passage(items, 100)
    assert sorted(window.targets[:, 0].tolist() for window in found) == [[1, 2, 0], [3, 0], [4, 5, 6, 0]]
    assert all(window.starts for window in found)


def test_a_passage_of_a_short_text_is_not_cut_into_the_streams_of_a_validation():
    data = SimpleNamespace(corpus=SimpleNamespace(splits={"val": TextSplit("val", np.arange(100))}), seq_len=8)
    view = View(SimpleNamespace(datamodule=data), SimpleNamespace(), 0)
    assert torch.cat([window.inputs[:, 0] for window in view.passage(64)]).tolist() == list(range(64))


# --- HParams ---------------------------------------------------------------------------------------------------------


def keys_of(kind: type, prefix: str = "") -> dict[str, object]:
    """Dotted key -> its type, of the typed configuration."""
    found: dict[str, object] = {}
    for name, hint in typing.get_type_hints(kind).items():
        found |= keys_of(hint, f"{prefix}{name}.") if is_dataclass(hint) else {prefix + name: hint}
    return found


def test_every_number_that_may_be_none_is_written_as_a_word_in_all_runs():
    numbers = {int, float, bool}
    nullable = {
        key
        for key, hint in keys_of(Config).items()
        if type(None) in typing.get_args(hint) and numbers & set(typing.get_args(hint))
        and not any(key == left or key.startswith(left + ".") for left in LEFT_OUT)
    }  # fmt: skip
    assert nullable == set(MAY_BE_NONE)


def test_a_key_has_one_type_whatever_its_value():
    plain = {"seed": 3, "optimizer": {"lr": 0.1, "eps": 1e-8, "betas": [0.9, 0.99]}, "callbacks": {"x": 1}}
    bare = {"seed": None, "optimizer": {"lr": 1, "eps": None, "betas": None}, "callbacks": {}}
    full, empty = dict(flat(plain)), dict(flat(bare))
    assert full == {"seed": "3", "optimizer.lr": 0.1, "optimizer.eps": "1e-08", "optimizer.betas": "[0.9, 0.99]"}
    assert empty == {"seed": "None", "optimizer.lr": 1, "optimizer.eps": "None", "optimizer.betas": "None"}


def test_a_value_that_has_no_ink_is_written_as_it_would_be_typed():
    assert dict(flat({"data": {"separator": "\n", "symbols": "a b"}})) == {
        "data.separator": "'\\n'",
        "data.symbols": "a b",
    }


def test_the_words_of_a_cell_of_ones_own_are_words_whatever_they_are():
    assert dict(flat({"model": {"options": {"k": 3, "wide": True}}})) == {
        "model.options.k": "3",
        "model.options.wide": "True",
    }


def test_rows_are_told_apart_by_their_own_words_what_is_mostly_compared_and_their_folder():
    config = {"model": {"name": "cell", "num_layers": 2, "hidden_size": 8}, "optimizer": {"name": "adam", "lr": 0.002},
              "seed": 1}  # fmt: skip
    folder = Path("runs/sweeps/x/0d3f5c9f0faf")
    assert row_name([], config, folder) == "cell 2x8 adam lr=0.002 seed=1 0d3f5c9f0faf"
    words = ["model=cell", "data.seq_len=12", "runs=elsewhere", "callbacks.save_figures=true"]
    assert row_name(words, config, folder) == "cell seq_len=12 (cell 2x8 adam lr=0.002 seed=1) 0d3f5c9f0faf"


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["<b>bold</b> **bold** $x$", "```\ncode\n```", "a ````` b", "", "\n\n# no heading"])
def test_a_sample_is_shown_as_it_is(text):
    import html

    from markdown import markdown

    shown = markdown(literally(text), extensions=["markdown.extensions.tables", "markdown.extensions.fenced_code"])
    assert shown.startswith("<pre><code>")
    inside = html.unescape(shown.removeprefix("<pre><code>").removesuffix("</code></pre>"))
    assert inside.strip("\n") == text.strip("\n")
