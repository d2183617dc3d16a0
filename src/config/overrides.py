"""Hydra's own flags on a command line, told apart from the words."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Transformer
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.hydra_compat import error_in_launcher, error_in_launcher_key
from src.errors import nearest

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


# ---- Literal values: what a user typed after the first `=` is taken as it stands, whatever Hydra's grammar ...

LITERAL_KEYS = (
    "prompt",
    "text",
    "stop",
    "file",
    "run",
    "checkpoint",
    "resume",
    "rerun",
    "init_from",
    "data.path",
    "data.root",
)
# Ours beside those that the specification names: paths and texts too.
ALSO_LITERAL = (
    *("data.val_path", "data.test_path", "data.separator", "data.input", "data.target", "data.symbols"),
    *("explain.input", "explain.target", "benchmark.out", "benchmark.folder", "output"),
)


def split_word(word: str) -> tuple[str, str] | None:
    """Return key and value of a word whose value is literal, else None; a leading + is not part of the key."""
    key, equals, value = word.partition("=")
    key = key.lstrip("+")
    return (key, value) if equals and key in LITERAL_KEYS + ALSO_LITERAL else None


def quote(value: str) -> str:
    """Return a word of Hydra's grammar that stands for exactly `value`, interpolations and escapes included.

    Backslashes count only before a quote, before `${`, or at the end, and are doubled there.
    """
    value = re.sub(r"(\\*)\$\{", lambda m: 2 * m[1] + r"\${", value)
    value = re.sub(r"(\\*)'", lambda m: 2 * m[1] + r"\'", value)
    value = re.sub(r"(\\+)$", lambda m: 2 * m[1], value)
    return f"'{value}'"


def quote_literals(words: Iterable[str]) -> list[str]:
    """Return the command line with every literal value quoted."""
    quoted = []
    for word in words:
        literal = split_word(word)
        if literal is None:
            quoted.append(word)
        else:
            key, value = literal
            quoted.append(f"{key}={quote(value)}")
    return quoted


# ---- The words of a command line, each held to the groups of conf/ and to the schema: all mistakes are told at once.

CONF = Path(__file__).resolve().parents[2] / "conf"


def without_null_groups(words: Iterable[str]) -> list[str]:
    """Return the words less `experiment=null` and its like: so they are by default, and Hydra cannot read it."""
    nulls = {f"{group}=null" for group in groups()}
    return [word for word in words if word.lower() not in nulls]


def groups(folders: Iterable[Path] = (CONF,)) -> dict[str, list[str]]:
    """Return our config groups and their options: the folders of conf/ and the files in them."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted(
            folder.glob("*/[!_]*.yaml")
        ):  # a leading underscore: a base of other options, not one itself
            found.setdefault(file.parent.name, []).append(file.stem)
    return found


def groups_for(schema: type, folders: Iterable[Path] = (CONF,)) -> dict[str, list[str]]:
    """Return the groups that a command's configuration is composed of, and any in folders of the user's own."""
    parts = {field.name for field in dataclasses.fields(schema)}
    parts |= {"debug"} & groups().keys() if "trainer" in parts else set()  # presets over a whole run, no part of it
    foreign = groups().keys() - parts
    return {group: options for group, options in groups(folders).items() if group not in foreign}


def keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Yield every key of the schema, dotted: `seed`, `data.seq_len`, `callbacks.predicted_string.enabled`."""
    for name, value in OmegaConf.to_container(OmegaConf.structured(schema)).items():  # type: ignore[union-attr]
        yield from _keys_of(str(name), value)


def _keys_of(name: str, value: Any) -> Iterator[str]:
    yield name
    if isinstance(value, dict):
        for child, below in value.items():
            yield from _keys_of(f"{name}.{child}", below)


def mistakes_in(words: Iterable[str], schema: type, folders: Iterable[Path] = (CONF,)) -> dict[str, str]:
    """Return what is wrong with each word by itself, {word: message}; words of Hydra's own are left to it."""
    options, known = groups_for(schema, folders), list(keys(schema))
    words = list(words)
    launcher = next((word.partition("=")[2] for word in reversed(words) if word.startswith("hydra/launcher=")), "basic")
    found = {}
    for word in words:
        message = _mistake(word, options, known, schema, launcher)
        if message:
            found[word] = message
    return found


def _mistake(word: str, options: dict[str, list[str]], known: list[str], schema: type, launcher: str) -> str | None:
    if "=" not in word:
        if word.startswith("~"):
            return f"{word}: nothing can be deleted; give the key another value ({word.lstrip('~')}=...)"
        return f"{word}: expected key=value{nearest(word, _all(known, options))}"
    try:
        override = OverridesParser.create().parse_override(word)
    except (OverrideParseException, HydraException) as error:
        reason = str(error).splitlines()[0]
        return f"{word}: Hydra cannot read this value ({reason}); put it in quotes: 'key=\"...\"'"
    key = override.key_or_group
    if key == "hydra/launcher" and not override.is_delete():
        return error_in_launcher(str(override.value()))
    if key.startswith("hydra.launcher.") and not override.is_delete():
        return error_in_launcher_key(key, launcher)
    if key.split(".")[0] == "hydra" or key.startswith("hydra/"):
        return None
    if override.is_delete():
        return f"{word}: nothing can be deleted; give the key another value ({key}=...)"
    values = list(_values(override))
    if key in options:
        is_needed = key in known and dataclasses.is_dataclass(OmegaConf.get_type(_typed(schema), key))
        nothing = not is_needed and not override.is_sweep_override()
        return next((m for m in (_wrong_option(key, value, options[key], nothing) for value in values) if m), None)
    if override.is_add() and not override.is_force_add() and key in known:
        return f"{word}: the key is there already; without the plus it is set: {word.lstrip('+')}"
    if key not in known and not _free(key, schema):
        return f"{key}: there is no such key{_nearest_key(key, known, options)}"
    return next((m for m in (_wrong_value(key, value, schema) for value in values) if m), None)


def several(word: str) -> bool:
    """Whether a word that can be read gives several values, as a sweep's does."""
    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except (OverrideParseException, HydraException):
        return False


def first_of_several(word: str) -> str:
    """Return a word that can be read with the first of its values, where a sweep gives several."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        return word
    first = next(override.sweep_iterator(transformer=Transformer.encode), None)
    return word if first is None else f"{override.get_key_element()}={first}"


def _values(override: Override) -> Iterator[Any]:
    if isinstance(override.value(), Glob):
        return  # it stands for options that are there
    if override.is_sweep_override():
        if override.is_discrete_sweep():
            yield from override.sweep_iterator()
        return
    yield override.value()


def _wrong_option(group: str, option: Any, allowed: list[str], nothing: bool) -> str | None:
    """`nothing`: whether the group may be left out, as an experiment may."""
    if nothing if option is None else option in allowed:
        return None
    option = "null" if option is None else option
    return f"{group}={option}: expected one of {', '.join(allowed)}{nearest(str(option), allowed)}"


def _free(key: str, schema: type) -> bool:
    """Whether the key lies in a mapping whose keys are the user's own (model.options)."""
    parent = key.rpartition(".")[0]
    node = OmegaConf.select(OmegaConf.structured(schema), parent) if parent else None
    return parent == "model.options" and node is not None


def _nearest_key(key: str, known: list[str], options: dict[str, list[str]]) -> str:
    """Return the nearest right word; a last part that is right (`hidden_size`, `lr`) is answered with the whole key."""
    leaf = key.rpartition(".")[2]
    whole = [k for k in known if k.rpartition(".")[2] == leaf]
    if whole:
        if leaf != key:
            whole = [max(whole, key=lambda one: likeness(key, one))]
        return f"; did you mean {' or '.join(whole[:3])}?"
    match = difflib.get_close_matches(key, _all(known, options), n=2, cutoff=0.6)
    if len(match) == 2 and likeness(key, match[1]) < likeness(key, match[0]):
        match.pop()  # the second is named only where it is as near
    if not match:
        leaves = {k.rpartition(".")[2]: k for k in known}
        match = [leaves[m] for m in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)]
    return f"; did you mean {' or '.join(match)}?" if match else f"; the groups are {', '.join(sorted(options))}"


def _all(known: list[str], options: Iterable[str]) -> list[str]:
    """Return keys and groups, each once: most groups are a key too."""
    return list(dict.fromkeys([*known, *options]))


def likeness(one: str, other: str) -> float:
    """Return how alike two words are, 0 to 1, as `difflib` counts."""
    return difflib.SequenceMatcher(None, other, one).ratio()


@functools.cache
def _typed(schema: type) -> Any:
    """Return a configuration to try values on; making one costs more than trying a hundred."""
    return OmegaConf.structured(schema)


def _wrong_value(key: str, value: Any, schema: type) -> str | None:
    config = _typed(schema)
    if isinstance(value, str) and "${" in value:
        return None  # an interpolation: its value is not known before composing
    try:
        OmegaConf.update(config, key, value, merge=True)
    except OmegaConfBaseException:
        if OmegaConf.is_dict(node := OmegaConf.select(config, key)):
            return _has_words_of_its_own(key, value, [str(name) for name in node])
        kind = _type_of(key, schema)
        listed = f"; did you mean {key}=[{value}]?" if kind.startswith("a list of names") and value else ""
        return f"{key}={value!r}: expected {kind}{listed}"
    return None


def _has_words_of_its_own(key: str, value: Any, below: list[str]) -> str:
    word = str(value).lower() if isinstance(value, bool) else value
    likely = "enabled" if isinstance(value, bool) and "enabled" in below else below[0] if len(below) == 1 else None
    way = f"did you mean {key}.{likely}={word}?" if likely else f"{key}.KEY=..., KEY one of {', '.join(below)}"
    return f"{key}={word}: {key} has words of its own; {way}"


def _type_of(key: str, schema: type) -> str:
    """Return the type of a key in plain words."""
    node: Any = schema
    for part in key.split("."):
        fields = {field.name: field.type for field in dataclasses.fields(node)}
        kind = fields.get(part, "another value")
        node = _dataclass_named(str(kind), node)
        if node is None:
            break
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "a word",
        "list[float]": "a list of numbers",
        "list[str]": "a list of names",
    }
    parts = [words.get(part.strip(), part.strip()) for part in str(kind).split("|")]
    return " or ".join("null" if part == "None" else part for part in parts)


def _dataclass_named(name: str, beside: type) -> type | None:
    import sys

    found = getattr(sys.modules[beside.__module__], name, None)
    return found if dataclasses.is_dataclass(found) and isinstance(found, type) else None
