"""A search space: which values are proposed, which words they become, what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from src.config.compose import compose, to_config
from src.config.schema import Parameter, SearchConfig, SearchRoot
from src.errors import UserError
from src.sweeps.search.space import as_experiment, check_trials, corners, errors_in_search, known_of, suggest

SPACE = {
    "optimizer.lr": Parameter("log_uniform", low=0.001, high=0.1),
    "model.num_layers": Parameter("int", low=1.0, high=3.0),  # as the schema has every end
    "model": Parameter("categorical", choices=["cell", "manual"]),
    "model.dropout": Parameter("uniform", low=0.0, high=0.5, when={"model.num_layers": [2, 3]}),
}


class Lowest:
    """Proposes the lowest value, or the first choice, and remembers what it was asked."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.asked: list[tuple[Any, ...]] = []

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        self.asked.append((name, low, high, step, log))
        return low

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        self.asked.append((name, low, high, step, log))
        return self.layers

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked.append((name, choices))
        return choices[0]


def test_each_kind_is_proposed_on_its_own_scale_and_a_conditional_one_only_where_its_condition_holds() -> None:
    assert list(suggest(Lowest(1), SPACE, {})) == ["optimizer.lr", "model.num_layers", "model"]
    trial = Lowest(2)
    assert list(suggest(trial, SPACE, {})) == list(SPACE)
    assert trial.asked == [
        ("optimizer.lr", 0.001, 0.1, None, True),
        ("model.num_layers", 1, 3, 1, False),
        ("model", ["cell", "manual"]),
        ("model.dropout", 0.0, 0.5, None, False),
    ]


def test_the_corners_hold_every_end_and_every_choice() -> None:
    found = corners(SPACE, {})
    ends = {"optimizer.lr": {0.001, 0.1}, "model.num_layers": {1, 3}, "model": {"cell", "manual"}}
    for key, values in (ends | {"model.dropout": {0.0, 0.5}}).items():
        assert {corner[key] for corner in found if key in corner} == values


def test_the_corners_hold_every_combination_of_choices_or_so_many_as_are_asked_for() -> None:
    space = {key: Parameter("categorical", choices=list(range(5))) for key in "abc"}
    assert len(corners(space, {})) == 125
    some = corners(space, {}, most=30)
    assert len(some) <= 30
    assert all({corner[key] for corner in some} == set(range(5)) for key in "abc")


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, "empty"),
        ({"seed": Parameter("integer", low=1, high=2)}, "did you mean int?"),
        ({"seed": Parameter("int", low=3, high=2)}, "low < high"),
        ({"optimizer.lr": Parameter("log_uniform", low=0.0, high=1.0)}, "low above 0"),
        ({"seed": Parameter("int", low=1, high=2.5)}, "whole numbers"),
        ({"seed": Parameter("log_int", low=1, high=9, step=2)}, "step is above 0, for kind=uniform and int"),
        ({"seed": Parameter("int", low=1, high=9, choices=[1, 2])}, "choices are for kind=categorical"),
        ({"model": Parameter("categorical")}, "needs choices"),
        ({"a": Parameter("int", low=1, high=2, when={"b": [1]}), "b": Parameter("int", low=1, high=2)}, "before it"),
    ],
)
def test_what_is_wrong_with_a_space_is_told(space: dict[str, Parameter], told: str) -> None:
    (message,) = errors_in_search(SearchRoot(SearchConfig(space=space)))
    assert told in message


def test_what_no_trial_could_run_is_told_before_the_first_one() -> None:
    space = {"model.dropout": Parameter("uniform", low=0.0, high=0.5)}
    with pytest.raises(UserError, match="one layer"):  # dropout acts between layers
        check_trials(["data=tiny_shakespeare"], space)


def test_a_combination_that_cannot_be_is_found_wherever_it_stands_among_the_choices() -> None:
    space = {
        "model": Parameter("categorical", choices=["cell", "lstm"]),
        "model.nonlinearity": Parameter("categorical", choices=[None, "relu"], when={"model": ["cell", "lstm"]}),
    }
    with pytest.raises(UserError, match="not used by model=lstm"):
        check_trials(["data=tiny_shakespeare"], space)
    space["model.nonlinearity"].when = {"model": ["cell"]}
    check_trials(["data=tiny_shakespeare"], space)


def test_a_condition_may_ask_for_a_group_that_all_trials_share() -> None:
    space = {"model.nonlinearity": Parameter("categorical", choices=["relu"], when={"model": ["cell"]})}
    assert suggest(Lowest(1), space, known_of(["model=cell"])) == {"model.nonlinearity": "relu"}
    assert suggest(Lowest(1), space, known_of(["model=lstm"])) == {}
    check_trials(["model=lstm"], space)


@pytest.mark.parametrize(
    ("words", "key", "when", "told"),
    [
        (["optimizer.lr=0.1"], "optimizer.lr", {}, "optimizer.lr=0.1: this search varies optimizer.lr"),
        (["seed=0,1"], "optimizer.lr", {}, "seed=0,1: a search gives all its trials one value"),
        ([], "optimizer.lr", {"model.num_layer": [2]}, "there is no such key; did you mean model.num_layers?"),
        ([], "optimizer.lrr", {"model.num_layers": [2]}, "did you mean optimizer.lr?"),
    ],
)
def test_what_would_do_nothing_is_told_before_there_is_a_study(
    words: list[str], key: str, when: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_trials(words, {key: Parameter("log_uniform", low=0.001, high=0.1, when=when)})
    assert [told in message for message in caught.value.messages] == [True]


def test_the_best_configuration_as_an_experiment_holds_what_differs_and_nothing_else(tmp_path: Path) -> None:
    words = ["callbacks=none", "data=tiny_shakespeare", "model=manual", "optimizer.lr=0.003", "runs=elsewhere"]
    experiment = as_experiment(words)
    assert {"override /model": "manual"} in experiment["defaults"]
    assert {"override /data": "tiny_shakespeare"} in experiment["defaults"]
    assert {key: value for key, value in experiment.items() if key != "defaults"} == {"optimizer": {"lr": 0.003}}
    assert to_config(compose(words)).optimizer.lr == 0.003
    words = ["data=text", "data.path=x", "model=manual", "data.seq_len=16"]  # a budget chooses for it as for the trial
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/best.yaml").write_text("# @package _global_\n" + yaml.safe_dump(as_experiment(words)))
    best = to_config(compose([f"hydra.searchpath=['file://{tmp_path}']", "experiment=best"]))
    assert best.chosen == to_config(compose(words)).chosen
    assert "optimizer.lr" in best.chosen
