"""Hydra's own flags on a command line, told apart from the words."""

from __future__ import annotations

from collections.abc import Iterable

from src.mistakes import nearest

FLAGS_WITH_A_VALUE = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    *("--package", "-p", "--cfg", "-c", "--info", "-i"),
)
FLAGS = (
    *("--help", "-h", "--hydra-help", "--version", "--multirun", "-m", "--run", "-r", "--resolve"),
    *("--shell-completion", "-sc", "--experimental-rerun"),
)


def overrides_in(words: Iterable[str]) -> list[str]:
    """Return the words that are not flags of Hydra's own, nor the values of such flags."""
    return flags_and_overrides(words)[1]


def flags_and_overrides(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's flags with their values, and all other words: it takes the two in this order alone."""
    flags: list[str] = []
    others: list[str] = []
    value = False
    for word in words:
        (flags if value or word.startswith("-") else others).append(word)
        value = not value and word in FLAGS_WITH_A_VALUE
    return flags, others


def mistakes_in_flags(flags: list[str]) -> list[str]:
    """Return what is wrong with flags and their values, as `flags_and_overrides` gives them."""
    wrong, words = [], iter(flags)
    for word in words:
        flag = word.partition("=")[0]
        if flag in FLAGS_WITH_A_VALUE:
            if flag == word and next(words, None) is None and flag not in ("--info", "-i"):
                wrong.append(f"{word}: expected a value behind it")
        elif word not in FLAGS:
            like = nearest(flag, (*FLAGS, *FLAGS_WITH_A_VALUE)) or "; there are --help, --multirun (-m), --cfg job"
            wrong.append(f"{word}: there is no such flag{like}")
    return wrong
