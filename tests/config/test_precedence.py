"""Single keys > options named on the command, own files too > experiment > what a text suggests > defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from src.config.checks import BY_SIZE
from src.config.compose import checked_config, compose, to_config
from src.errors import UserError

OWN = {
    "model/_mine.yaml": "hidden_size: 300\nnum_layers: 3\n",
    "model/mine.yaml": "defaults: [_mine, _self_]\nname: mine\n_target_: mine.Mine\noptions: {leak: 0.5}\n",
    "model/like_ours.yaml": "defaults: [_rnn, _self_]\nname: mine\n_target_: mine.Mine\nhidden_size: 300\n",
    "optimizer/mine.yaml": "name: adam\nlr: 0.3\n",
    "trainer/mine.yaml": "defaults: [default, _self_]\nmax_epochs: 77\ngradient_clip_val: 9.0\n",
    "experiment/chosen.yaml": "# @package _global_\ndefaults: [override /model: mine, override /optimizer: sgd]\n"
    "model: {hidden_size: &width 64}\ndata: {evaluation_streams: *width}\n",
    "data/mine.yaml": "# @package _global_\ndefaults: [text, _self_]\ndata: {name: mine, path: x}\n"
    "model: {dropout: 0.3}\ntrainer: {max_epochs: 20}\n",
    "data/my_list.yaml": "# @package _global_\ndefaults: [lines, _self_]\ndata: {name: my_list, path: x}\n",
}
TEXT = "data=text data.path=x"
CASES: dict[str, dict[str, Any]] = {
    # what is specific to a named option
    f"{TEXT} optimizer=sgd": {"optimizer.lr": 0.1, "optimizer.momentum": 0.9},
    "optimizer=rmsprop": {"optimizer.lr": 0.002},
    "optimizer=adam": {"optimizer.lr": 0.001},
    f"{TEXT} optimizer=sgd optimizer.lr=7.0": {"optimizer.lr": 7.0, "optimizer.momentum": 0.9},
    "experiment=tiny_shakespeare optimizer=sgd": {"optimizer.lr": 0.1, "optimizer.weight_decay": 0.0},
    "experiment=tiny_shakespeare scheduler=step": {"scheduler.step_size": 1000, "scheduler.warmup_steps": 100},
    "callbacks=none": {"callbacks.predicted_string.enabled": False, "callbacks.layout.enabled": False},
    # what is suggested, where nothing was chosen
    "": {"optimizer.lr": 0.1, "model.hidden_size": 4, "callbacks.predicted_string.enabled": True},
    TEXT: {
        "optimizer.lr": 0.0027,
        "model.name": "manual",
        "trainer.gradient_clip_val": 0.2,
        "scheduler.name": "cosine",
    },
    "data=time_machine": {
        "chosen": None,
        "optimizer.lr": 0.002,
        "model.hidden_size": 128,
        "trainer.gradient_clip_val": 1.0,
    },
    # what the size of the text chooses: nothing that the command or a file of its choice sets
    f"{TEXT} model=cell": {"chosen": list(BY_SIZE)},
    f"{TEXT} experiment=tiny_shakespeare": {
        "chosen": ["model.dropout", "model.dropout_mask", "model.readout_bias"],
        "model.num_layers": 2,
    },
    f"{TEXT} experiment=chosen": {"chosen": ["data.batch_size", "trainer.max_epochs"]},
    f"{TEXT} model=mine": {"chosen": list(BY_SIZE[-4:])},
    f"{TEXT} model=like_ours optimizer=adam": {"chosen": ["data.batch_size", "trainer.max_epochs"]},
    f"{TEXT} model=gru model.dropout=0.1 model.num_layers=1 model.init=torch debug=fast": {
        "chosen": [
            *("model.hidden_size", "model.dropout_mask", "model.input_scale", "model.interlayer_scale"),
            *("model.readout_bias", "data.batch_size", "optimizer.lr", "optimizer.weight_decay"),
        ]
    },
    "data=mine": {"chosen": [key for key in BY_SIZE if key not in ("model.dropout", "trainer.max_epochs")]},
    f"{TEXT} model.dropout_mask=window": {"model.dropout_mask": "window", "model.dropout": 0.0},
    f"{TEXT} experiment=chosen budget=10min": {
        "chosen": [
            *("data.batch_size", "trainer.max_epochs", "data.seq_len", "data.offset", "scheduler.name"),
            *("scheduler.warmup_steps", "trainer.gradient_clip_val", "trainer.precision", "trainer.max_steps"),
        ]
    },
    "data=my_list": {"data.items": True},
    "data=lines data.path=x": {"data.items": None},  # as in its stored runs
    "experiment=tiny_shakespeare": {"optimizer.lr": 0.0027, "optimizer.betas": [0.9, 0.99], "trainer.max_epochs": 8},
    # options called default, and what our options share, are defaults, typed or not
    "callbacks=default trainer=default": {"callbacks.predicted_string.enabled": True, "trainer.max_epochs": 15},
    "model=manual": {"model.hidden_size": 4, "model.readout": "identity", "model.num_layers": 1},
    "model=gru": {"model.hidden_size": 4, "model.readout": "identity", "model.nonlinearity": None},
    "data=enwik8 model=gru": {"model.hidden_size": 512, "model.num_layers": 1},
    "experiment=tiny_shakespeare model=lstm": {"model.hidden_size": 448, "model.num_layers": 2},
    # one bias where the text is not the tutorial's
    "model=stacked": {"model.single_bias": False},
    "experiment=tutorial": {"model.single_bias": False},
    f"{TEXT} model=stacked": {"model.single_bias": True},
    "data=names": {"model.single_bias": True},
    f"{TEXT} model=manual": {"model.single_bias": False},  # as in its stored sweeps
    f"{TEXT} model=gru": {"model.single_bias": False},
    # files of the user's own
    "model=mine": {"model.hidden_size": 300, "model.num_layers": 3, "model.options": {"leak": 0.5}},
    f"{TEXT} model=mine model.hidden_size=5": {"model.hidden_size": 5, "model.num_layers": 3},
    f"{TEXT} model=like_ours": {"model.hidden_size": 300, "model.num_layers": 1},
    "experiment=tiny_shakespeare model=mine": {"model.hidden_size": 300, "model.input_scale": 3.0},
    f"{TEXT} optimizer=mine trainer=mine": {"optimizer.lr": 0.3, "trainer.max_epochs": 77},
    "experiment=tiny_shakespeare trainer=mine": {"trainer.gradient_clip_val": 9.0, "trainer.precision": "bf16-mixed"},
    "experiment=tiny_shakespeare data=mine optimizer=sgd": {"trainer.max_epochs": 20, "optimizer.lr": 0.1},
    "trainer=mine debug=fast": {"trainer.max_epochs": 1},
    # an experiment's own keys, then the options that it chooses, then what the text suggests
    "experiment=chosen": {"model.hidden_size": 64, "model.num_layers": 3, "optimizer.lr": 0.1},
    f"{TEXT} experiment=chosen model=cell": {"model.hidden_size": 64, "optimizer.lr": 0.1, "trainer.max_epochs": 10},
}


@pytest.mark.parametrize("words", CASES)
def test_what_a_user_chose_is_what_happens(words: str, tmp_path: Path) -> None:
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    config = to_config(compose([f"hydra.searchpath=['file://{tmp_path}']", *words.split()]))
    for key, value in CASES[words].items():
        found: Any = config
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value, key


def test_a_file_of_ones_own_that_would_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "sgd.yaml").write_text("name: sgd\nlr: 7.0\n")
    with pytest.raises(UserError, match=r"optimizer/sgd.yaml: conf/ has an option of this name, which is read in"):
        checked_config(["--config-dir", str(tmp_path), "optimizer=sgd"])
