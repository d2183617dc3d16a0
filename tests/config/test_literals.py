"""Literal values reach the program to the letter, through Hydra's grammar and out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from src.config.compose import compose, to_config
from src.config.overrides import errors_in_overrides, literal_keys, quote_literals
from src.config.schema import Config, ExplainConfig, ExportConfig, SampleConfig, ScoreConfig, SearchRoot, key_table
from src.files import absolute_path
from tests.runs.commands import run

HARD = [",'\"(){}=$", "a\nb", "中文再见", r"\${x}", "${x}", "${oc.env:HOME}", r"a\\'b", "a\\", "it's"]
# words that mean something to YAML or to Hydra
HARD += ["true", "NULL", "1e3", "1.10", "choice(a,b)", "  lead ", "", "#x"]


def given_hard_values(test: Callable[..., None]) -> Callable[..., None]:
    for value in HARD:
        test = example(value=value)(test)
    return test


def through_hydra(value: str, folder: Path) -> str:
    (folder / "c.yaml").write_text("data: {path: null}\n")
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        cfg = hydra.compose("c", quote_literals([f"data.path={value}"]))
        return OmegaConf.to_container(cfg, resolve=True)["data"]["path"]  # type: ignore[index,call-overload,return-value]


TYPED = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=12).filter(
    lambda value: value != "null"  # which is no value
)


@settings(max_examples=10)
@given(value=TYPED)
@given_hard_values
def test_any_value_stays_as_it_was_typed(value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert through_hydra(value, tmp_path_factory.mktemp("conf")) == value


@pytest.mark.parametrize("schema", [Config, SampleConfig, ScoreConfig, ExportConfig, ExplainConfig, SearchRoot])
def test_a_key_is_literal_if_any_text_is_a_value_of_it(schema: type) -> None:
    for key, about in key_table(schema).items():
        free = about.type is str and about.choices is None and about.range is None
        assert (key in literal_keys(schema)) == (free and key != "experiment"), key  # experiment is a group
    assert quote_literals(["model.init=a,b", "experiment=a,b"]) == ["model.init=a,b", "experiment=a,b"]


def test_null_stays_null_and_choice_gives_a_literal_key_several_values_in_a_sweep() -> None:
    assert quote_literals(["name=null", "+logger.wandb.name=1.10"]) == ["name=null", "+logger.wandb.name='1.10'"]
    jobs = quote_literals(["name=choice(1e5, it's, 'a,b',null)", "data.path=a, b"], sweep=True)
    assert jobs == [r"name='1e5','it\'s','a,b',null", "data.path='a, b'"]
    assert errors_in_overrides(jobs, Config) == {}


def test_each_item_of_a_list_of_texts_is_literal() -> None:
    (quoted,) = quote_literals(["data.paths=[1.10, my text.txt,'a,b.txt']"])
    config = to_config(compose(["data=text", quoted]))
    assert config.data.paths == ["1.10", "my text.txt", "a,b.txt"]
    assert config.with_absolute_paths().data.paths == [absolute_path(path) for path in config.data.paths]


@pytest.mark.slow
def test_a_file_with_an_awful_name_is_trained_on_in_a_sweep_too(tmp_path: Path) -> None:
    name = "it's {a},b=${c} 中文.txt"
    (tmp_path / name).write_text("the quick brown fox jumps over the lazy dog. " * 40)
    small = ["trainer.max_epochs=1", "data.batch_size=2", "model.hidden_size=4", "callbacks=none"]
    run("-m", "data=text", f"data.path={name}", "seed=0,1", *small, cwd=tmp_path)
    assert len(list(tmp_path.rglob("run.json"))) == 2
