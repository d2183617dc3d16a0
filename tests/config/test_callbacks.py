"""The callbacks group: its mistakes are told, and every watcher has its switch."""

import copy
from dataclasses import asdict
from pathlib import Path

import yaml

from src.config.schema import CallbacksConfig, mistakes_in_callbacks
from src.training.trainer import PLAIN

CONF = Path(__file__).resolve().parents[2] / "conf" / "callbacks"


def test_a_cadence_below_one_a_negative_temperature_and_an_empty_sample_are_mistakes_all_told_at_once():
    words = asdict(CallbacksConfig())
    assert list(mistakes_in_callbacks(copy.deepcopy(words))) == []
    words["gradient_flow"]["every_n_steps"] = 0
    words["text_samples"] |= {"length": 0, "temperatures": [0.0, -1.0, float("nan")]}
    told = list(mistakes_in_callbacks(words))
    assert len(told) == 4
    assert told[0].startswith("callbacks.gradient_flow.every_n_steps=0: expected at least 1")
    words["text_samples"] |= {"length": 1, "temperatures": []}
    assert list(mistakes_in_callbacks(words))[1].startswith("callbacks.text_samples.temperatures=[]: expected at least")


def test_every_watcher_has_a_switch_that_is_on_by_default_and_off_under_none():
    default, none = (yaml.safe_load((CONF / f"{name}.yaml").read_text()) for name in ("default", "none"))
    switches = set(asdict(CallbacksConfig())) - {"save_figures"}
    assert set(default) == set(none) == switches | {"save_figures"}
    assert {kind.name for kind in PLAIN} < switches
    assert all(default[kind.name]["enabled"] for kind in PLAIN)
    assert not any(none[name]["enabled"] for name in switches)
