"""The configuration of a training run that a benchmark makes: its own words of src.train, and the user's after them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.config.checks import mistakes_in_config
from src.config.key import run_name
from src.config.literals import quote_literals
from src.config.schema import Config
from src.config.words import mistakes_in
from src.mistakes import Mistake
from src.searching.compose import config_of


def training_config(words: Sequence[str]) -> dict[str, Any]:
    """Return the checked configuration, plain data.

    Raises:
        Mistake: everything that is wrong with the words.
    """
    wrong = list(mistakes_in(quote_literals(words), Config).values())
    if wrong:
        raise Mistake(*wrong)
    config = config_of(words)
    if wrong := mistakes_in_config(config):
        raise Mistake(*wrong)
    config["name"] = run_name(config)
    return config
