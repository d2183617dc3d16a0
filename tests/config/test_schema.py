"""The table of keys: what the schema says of each key is what the checks, the sweep's key and a resume use."""

from __future__ import annotations

import copy
import dataclasses
from math import inf, nan

import yaml

from src.config.checks import errors_in_config
from src.config.compose import compose, to_config
from src.config.overrides import CONF
from src.config.run_key import run_key, what_matters
from src.config.schema import OUR_LOGGERS, CallbacksConfig, Config, flatten, from_plain, key_table, set_value, to_plain


def composed(*overrides: str) -> Config:
    return to_config(compose(overrides))


def test_every_range_that_a_key_names_refuses_nan():
    for key, about in key_table().items():
        if about.range and about.type in (int, float, list[float]):
            assert not about.range.holds([nan, nan] if about.type == list[float] else nan), key


def test_a_value_out_of_range_is_one_error_that_names_the_key():
    sound = composed("data=text", "data.path=x", "model=manual")
    assert errors_in_config(sound) == []
    for key, value in (
        ("callbacks.gradient_flow.every_n_steps", 0),
        ("callbacks.text_samples.length", 0),
        ("callbacks.text_samples.temperatures", []),
        ("callbacks.text_samples.temperatures", [0.0, nan]),
        ("optimizer.betas", [0.9]),
        ("optimizer.betas", [0.9, 1.0]),
        ("optimizer.lr", inf),
        ("trainer.threads", "1025"),
        ("trainer.threads", "0"),
        ("trainer.limit_val_batches", 2.5),
        ("model.init", "zero"),
    ):
        set_value(config := copy.deepcopy(sound), key, value)
        (error,) = errors_in_config(config)
        assert error.startswith(f"{key}={value}: expected ")


def test_a_key_that_cannot_change_the_result_is_not_in_the_key_of_a_run():
    config = composed()
    for key, about in key_table().items():
        before, after = copy.deepcopy(config), copy.deepcopy(config)
        value = {str: "other", bool: True, int: 77, float: 0.77}.get(
            about.type, ["other"] if about.type == list[str] else [0.5, 0.25]
        )
        set_value(before, key, None)
        set_value(after, key, {"a": 1} if str(about.type).startswith("dict") else value)
        assert (run_key(before) != run_key(after)) == about.affects_result, key


def test_a_key_that_came_later_counts_only_when_it_is_set():
    config = composed("model=manual")
    assert "interlayer_scale" not in what_matters(config)["model"]
    config.model.interlayer_scale = 1.0
    assert what_matters(config)["model"]["interlayer_scale"] == 1.0


def test_a_resumed_run_may_change_where_things_are_what_is_shown_and_how_long_it_trains():
    may = {key for key, one in key_table().items() if one.may_change and not key.startswith(("callbacks.", "early"))}
    lengths = {f"trainer.{key}" for key in ("max_epochs", "max_steps", "max_time", "min_epochs")}
    places = {"runs", "data.path", "data.paths", "data.val_path", "data.test_path", "data.root"}
    machine = {"trainer.accelerator", "trainer.cuda_graph", "trainer.threads", "trainer.enable_progress_bar"}
    shown = {"logger", "sweep.dry_run", "sweep.on_failure", "checkpoint.every_n_steps", "checkpoint.every_n_minutes"}
    assert may == lengths | places | machine | shown
    assert key_table()["callbacks.text_samples.prompt"].may_change
    assert key_table()["early_stopping.patience"].may_change


def test_a_configuration_survives_the_way_through_plain_data():
    config = composed("experiment=tiny_shakespeare", "optimizer=sgd")
    assert from_plain(to_plain(config)) == config
    older = to_plain(config)
    del older["model"]["interlayer_scale"], older["sweep"]
    older["trainer"]["removed_key"] = 1
    for name, target in OUR_LOGGERS.items():  # from before there were several at once
        assert from_plain(older | {"logger": {"name": name}}).logger == {name: {"_target_": target}}
    assert from_plain(older | {"logger": {"name": "none"}}).logger == {}
    config.model.interlayer_scale = None
    assert from_plain(older) == config


def test_every_key_of_conf_has_a_default_with_its_reason_in_the_file():
    for name in ("default", "none"):
        keys = dict(flatten(yaml.safe_load((CONF / "callbacks" / f"{name}.yaml").read_text())))
        assert {key.partition(".")[0] for key in keys} == {field.name for field in dataclasses.fields(CallbacksConfig)}
    trainer = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
    assert [f"trainer.{key}" for key in trainer] == [key for key in key_table() if key.startswith("trainer.")]
