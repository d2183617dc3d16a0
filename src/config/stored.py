"""The configuration that a run has stored, and the words that change it: `resume=DIR key=value`, `rerun=DIR ...`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.checks import mistakes_in_config
from src.config.flags import overrides_in
from src.config.literals import quote_literals, split_word
from src.config.schema import Config
from src.config.words import groups, mistakes_in
from src.mistakes import Mistake
from src.training.locate import newest_below


def take(keys: Sequence[str], words: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Split a command line into the literal values of `keys` and all other words.

    Raises:
        Mistake: two of the keys, or one of them twice.
    """
    taken: dict[str, str] = {}
    rest = []
    for word in words:
        literal = split_word(word)
        if literal is None or literal[0] not in keys:
            rest.append(word)
        elif taken:
            raise Mistake(
                f"{word}: one stored run at a time, and {'='.join(next(iter(taken.items())))} is given already"
            )
        elif not literal[1]:
            raise Mistake(f"{word} is empty: expected the folder of a run")
        else:
            taken[literal[0]] = literal[1]
    return taken, rest


def stored_config(folder: Path, words: Sequence[str] = ()) -> dict[str, Any]:
    """Return the configuration of a run, with the words' changes; checked as a whole.

    Raises:
        Mistake: the folder is no run, or a word is wrong.
    """
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        below = newest_below(folder) if folder.is_dir() else ""
        raise Mistake(f"{folder} is no run: there is no {path.name} in it{below}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise Mistake(f"{path} is not the configuration of a run: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise Mistake(f"{path} is not the configuration of a run")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), _escaped(config))
        whole = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise Mistake(f"{path} is not the configuration of a run: {str(error).splitlines()[0]}") from error
    assert isinstance(whole, dict)
    changes, wrong = _changes_and_mistakes(words)
    for key, value in changes.items():
        node: Any = whole
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    wrong += mistakes_in_config(whole)  # type: ignore[arg-type]  # a container of a structured config has string keys
    if wrong:
        raise Mistake(*wrong)
    return whole  # type: ignore[return-value]


def changes_in(words: Sequence[str]) -> dict[str, Any]:
    """Return {dotted key: value} of the words that change a stored configuration.

    Raises:
        Mistake: what is wrong with any of them; a group, whose other keys are stored already.
    """
    changes, wrong = _changes_and_mistakes(words)
    if wrong:
        raise Mistake(*wrong)
    return changes


def _changes_and_mistakes(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return {dotted key: value} of the words that are right, and what is wrong with the others."""
    flags = [word for word in words if word.startswith("-")]
    quoted = quote_literals(overrides_in(words))
    mistakes = mistakes_in(quoted, Config)
    wrong = list(mistakes.values())
    wrong += [f"{flag}: a stored run is taken as it is; sweeps and Hydra's flags belong to new runs" for flag in flags]
    changes: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides([word for word in quoted if word not in mistakes]):
        key = override.key_or_group
        if key in groups() or override.is_sweep_override():
            wrong.append(f"{override.input_line}: a stored run is changed key by key ({key}.KEY=value)")
        else:
            changes[key] = override.value()
    typed = OmegaConf.structured(Config)
    for key, value in changes.items():
        OmegaConf.update(typed, key, value)
    whole = OmegaConf.to_container(OmegaConf.create({key: OmegaConf.select(typed, key) for key in changes}))
    assert isinstance(whole, dict)
    return {str(key): value for key, value in whole.items()}, wrong


def _escaped(value: Any) -> Any:
    """Return stored data so that OmegaConf reads no interpolation into it: it was resolved when it was stored."""
    if isinstance(value, dict):
        return {key: _escaped(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_escaped(below) for below in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
