"""The types and checks of `python -m src.explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from src.mistakes import nearest

CHOICES = {"nonlinearity": ("tanh", "relu"), "format": ("text", "markdown")}
# More does not fit beside one another in 100 columns, and nobody reads it
RANGES = {"num_layers": (1, 6), "hidden_size": (1, 8)}
MOST_STEPS = 12
MOST_SYMBOLS = 8


@dataclass
class ExplainWords:
    """What is explained, and how it is shown."""

    input: str = MISSING
    target: str = MISSING
    hidden_size: int = MISSING
    num_layers: int = MISSING
    nonlinearity: str = MISSING
    seed: int = MISSING
    format: str = MISSING


@dataclass
class ExplainConfig:
    """The whole of conf/explain.yaml."""

    explain: ExplainWords = field(default_factory=ExplainWords)


def symbols_of(word: str, target: str) -> str:
    """Return the vocabulary in the order of its ids: the page's own, e h l o, where that is enough."""
    letters = set(word + target)
    return "ehlo" if letters <= set("ehlo") else "".join(sorted(letters))


def mistakes_in_explain(config: Mapping[str, Any]) -> list[str]:
    """Return everything that is wrong, one text a mistake."""
    words, found = config["explain"], []
    for key, allowed in CHOICES.items():
        value = words[key]
        if value not in allowed:
            found.append(f"explain.{key}={value}: expected one of {', '.join(allowed)}{nearest(value, allowed)}")
    for key, (least, most) in RANGES.items():
        if not least <= words[key] <= most:
            found.append(f"explain.{key}={words[key]}: expected {least} to {most}, so that its numbers fit on a line")
    if not 0 <= words["seed"] < 2**63:
        found.append(f"explain.seed={words['seed']}: expected 0 to {2**63 - 1}")
    word, target = words["input"], words["target"]
    if len(word) != len(target):
        found.append(
            f"explain.input={word} has {len(word)} characters and explain.target={target} has {len(target)}; each step "
            "needs one target"
        )
    if not 1 <= len(word) <= MOST_STEPS:
        found.append(f"explain.input={word} has {len(word)} characters: expected 1 to {MOST_STEPS}")
    if len(symbols_of(word, target)) > MOST_SYMBOLS:
        found.append(f"explain.input and explain.target have over {MOST_SYMBOLS} different characters; use fewer")
    if not (word + target).isprintable():
        found.append("explain.input and explain.target: expected characters that can be printed")
    return found
