"""Backpropagation through time of a short example, as numbers: python -m src.explain. No torch in this file."""

from src.config.schema import ExplainConfig, errors_in_values

MOST_STEPS, MOST_SYMBOLS = 12, 8  # more do not fit side by side in 100 columns


def symbols_of(word: str, target: str) -> str:
    """Return the vocabulary in the order of its ids: the tutorial's own, e h l o, where that is enough."""
    letters = set(word + target)
    return "ehlo" if letters <= set("ehlo") else "".join(sorted(letters))


def errors_in_explain(config: ExplainConfig) -> list[str]:
    """Return all errors, one text each."""
    word, target = config.explain.input, config.explain.target
    found = list(errors_in_values(config, ExplainConfig))
    if len(word) != len(target):
        lengths = f"explain.input={word} has {len(word)} characters and explain.target={target} has {len(target)}"
        found.append(f"{lengths}; each step needs one target")
    if not 1 <= len(word) <= MOST_STEPS:
        found.append(f"explain.input={word} has {len(word)} characters: expected 1 to {MOST_STEPS}")
    if len(symbols_of(word, target)) > MOST_SYMBOLS:
        found.append(f"explain.input and explain.target have over {MOST_SYMBOLS} different characters; use fewer")
    return found
