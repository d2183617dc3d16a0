"""--help of a command: its own groups and keys, each with the reason that conf/ gives."""

from __future__ import annotations

import re

import pytest

from src.config import schema
from src.config.help import help_text
from src.config.overrides import groups
from src.config.schema import key_table

COMMANDS = {
    "train": schema.Config,
    "sample": schema.SampleConfig,
    "score": schema.ScoreConfig,
    "evaluate": schema.EvaluateConfig,
    "export": schema.ExportConfig,
    "search": schema.SearchRoot,
    "explain": schema.ExplainConfig,
    "benchmark": schema.BenchmarkConfig,
}
WITHOUT = re.compile(
    r"\.(every_n_steps|enabled|options|space|words|name|study|recall|test_length|test_depth|\w+_size|num_layers|seq_len)="
)  # said once above


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_the_groups_and_keys_of_its_command_with_reasons_and_no_others(name: str) -> None:
    table, text = key_table(COMMANDS[name]), help_text(name, COMMANDS[name])
    listed = dict(re.findall(r"^  ([\w.]+)=(.*)$", text.partition("\nkeys, ")[2], re.MULTILINE))
    assert listed.keys() <= table.keys()
    assert {key for key in table.keys() - listed.keys() if not key.endswith(("name", "_target_"))} <= groups().keys()
    bare = [f"{key}={rest}" for key, rest in listed.items() if not re.search(r"\S {2,}\S|^ {2,}\S", f"{rest}")]
    bare = [one for one in bare if len(one.split()) < 3 and not WITHOUT.search(one)]
    assert bare == []
    named = set(re.findall(r"^  (\w+)=\S+\|", text.partition("\nkeys, ")[0], re.MULTILINE))
    own = {"train": {"model", "data", "optimizer"}, "search": {"search"}, "benchmark": {"benchmark"}, "explain": set()}
    assert own.get(name, {"model"}) <= named
    assert name == "train" or not named & {"data", "optimizer", "trainer", "callbacks"}


def test_a_line_of_help_has_default_reason_and_choices() -> None:
    text = help_text("train", schema.Config)
    assert re.search(r"^  model.init=torch +uniform .* \(torch\|orthogonal\|identity\)$", text, re.MULTILINE)
    assert re.search(r"^  data.seq_len=64 +steps of a window", text, re.MULTILINE)
    assert re.search(r"^  seed=0 +any integer from 0 on", text, re.MULTILINE)
    assert re.search(r"^  temperature=1.0 +1: the model's own", help_text("sample", schema.SampleConfig), re.MULTILINE)
