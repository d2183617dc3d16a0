"""The arguments of a command line: Hydra's flags, literal values, and each override checked against the schema.

All errors of a command are reported at once, with the right name where one is misspelled. No torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Transformer
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.hydra_compat import CONF, error_in_launcher
from src.config.schema import Config, key_table
from src.errors import UserError, nearest, typed

FLAGS_WITH_A_VALUE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p",
                      "--cfg", "-c", "--info", "-i")  # fmt: skip
VALUES_OF: dict[str, tuple[str, ...]] = dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all"))
VALUES_OF |= dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"))
LOGGER_TEXTS = {f"logger.wandb.{key}" for key in ("project", "name", "save_dir", "entity", "group")}
LOGGER_TEXTS |= {f"logger.mlflow.{key}" for key in ("tracking_uri", "experiment_name", "run_name")}
FLAGS = ("--help", "-h", "--hydra-help", "--version", "--multirun", "-m", "--run", "-r", "--resolve",
         "--shell-completion", "-sc", "--experimental-rerun")  # fmt: skip


def flags_and_overrides(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return Hydra's flags with their values, and all other arguments: Hydra accepts them in this order only."""
    flags: list[str] = []
    overrides: list[str] = []
    is_value = False
    for argument in arguments:
        (flags if is_value or argument.startswith("-") else overrides).append(argument)
        is_value = not is_value and argument in FLAGS_WITH_A_VALUE
    return flags, overrides


def errors_in_repeats(overrides: Iterable[str]) -> list[str]:
    """Return which keys of a command line have two values, of which Hydra would use the last."""
    first: dict[str, str] = {}
    keys = ((one.partition("=")[0].lstrip("+"), one) for one in overrides)
    twice = [(key, one) for key, one in keys if first.setdefault(key, one) != one]
    several = {"data.path": "; several texts are data.paths=[a.txt,b.txt]"}
    return [f"{key} is given twice: {first[key]} and {one}; leave one out{several.get(key, '')}" for key, one in twice]


def errors_in_flags(flags: list[str]) -> list[str]:
    """Return what is wrong with flags and their values, as `flags_and_overrides` gives them."""
    wrong, rest = [], iter(flags)
    for argument in rest:
        flag = argument.partition("=")[0]
        if flag in FLAGS_WITH_A_VALUE:
            value = argument.partition("=")[2] if flag != argument else next(rest, "")
            if not value and flag not in ("--info", "-i"):
                wrong.append(f"{argument}: expected a value after it")
            elif value and value not in VALUES_OF.get(flag, (value,)):
                wrong.append(f"{flag} {value}: expected one of {', '.join(VALUES_OF[flag])}")
        elif argument not in FLAGS:
            like = nearest(flag, (*FLAGS, *FLAGS_WITH_A_VALUE)) or "; there are --help, --multirun (-m), --cfg job"
            wrong.append(f"{argument}: there is no such flag{like}")
    if {"-m", "--multirun"}.intersection(flags) and any(flag.partition("=")[0] in ("-c", "--cfg") for flag in flags):
        wrong.append("--cfg shows one configuration: leave -m out")
    return wrong


def split_literal(argument: str, schema: type = Config) -> tuple[str, str] | None:
    """Return key (without +) and value of an override whose value is literal, all after the first `=`; else None."""
    key, equals, value = argument.partition("=")
    key = key.lstrip("+")
    return (key, value) if equals and key in literal_keys(schema) else None


@functools.cache
def literal_keys(schema: type = Config) -> frozenset[str]:
    """Return the keys of a command whose values are literal: those of free text that are no groups (experiment)."""
    free = {key for key, one in key_table(schema).items() if one.type is str and not (one.choices or one.range)}
    return frozenset(free - groups().keys() | ({"resume", "rerun", *LOGGER_TEXTS} if schema is Config else set()))


def quote(value: str) -> str:
    """Return an expression of Hydra's grammar whose value is exactly `value`, interpolations and escapes included.

    Backslashes count only before a quote, before `${`, or at the end, and are doubled there.
    """
    value = re.sub(r"(\\*)\$\{", lambda m: 2 * m[1] + r"\${", value)
    value = re.sub(r"(\\*)'", lambda m: 2 * m[1] + r"\'", value)
    value = re.sub(r"(\\+)$", lambda m: 2 * m[1], value)
    return f"'{value}'"


def quote_literals(arguments: Iterable[str], schema: type = Config, sweep: bool = False) -> list[str]:
    """Return the arguments with every literal value quoted, and the items of a list of texts; `key=null` stays null.

    In a sweep `key=choice(a,b)` gives a literal key several values; one with a comma in it is put in quotes.
    """
    quoted = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        about = key_table(schema).get(key)
        if literal := split_literal(argument, schema):
            several = re.fullmatch(r"choice\((.*)\)", value) if sweep else None
            value = _quoted_items(several[1]) if several else _quoted(value)
            argument = f"{key if literal[0] in LOGGER_TEXTS else literal[0]}={value}"
        elif about and about.type == list[str] and (items := re.fullmatch(r"\[([^][]*)\]", value)):
            argument = f"{key}=[{_quoted_items(items[1])}]"
        quoted.append(argument)
    return quoted


def _quoted(value: str) -> str:
    return value if value == "null" else quote(value)


def _quoted_items(text: str) -> str:
    """Quote each item of a list that is not in quotes."""
    items = re.findall(r"""\s*(?:('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|([^,]+?))\s*(?:,|$)""", text)
    return ",".join(as_is or _quoted(item) for as_is, item in items)


def in_file(settings: Any, command: Sequence[str], schema: type, folders: Iterable[Path] = (CONF,)) -> list[list[str]]:
    """Return the overrides of each of a file's `hydra.sweeper.jobs`, with its `params`, and those of the command.

    `params` are written as on the command line (`seed: 0,1,2`) or as a list (`seed: [0, 1, 2]`); each job of `jobs`,
    {key: value}, is crossed with them. A job's value comes before that of `params`, one of the command before both.
    """
    params: Any = settings.get("params") or {}
    jobs: Any = settings.get("jobs") or [{}]
    if not isinstance(params, dict):
        raise UserError("hydra.sweeper.params: expected KEY: VALUES, as seed: 0,1,2")
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise UserError("hydra.sweeper.jobs: expected a list of {KEY: VALUE, KEY: VALUE}")
    several = [f"{key}={_values_as_typed(key, value, schema)}" for key, value in params.items()]
    grid = quote_literals(several, schema, sweep=True)
    pairs = [quote_literals([f"{key}={_as_typed(key, job[key], True)}" for key in job], schema) for job in jobs]
    wrong: dict[str, None] = {}
    for where, some in (("params", grid), ("jobs", [word for pair in pairs for word in pair])):
        errors = errors_in_overrides(some, schema, folders).values()
        wrong |= dict.fromkeys(f"hydra.sweeper.{where}: {error}" for error in errors)
    if wrong:
        raise UserError(*wrong)
    by_key = [{word.partition("=")[0]: word for word in [*grid, *pair, *command]} for pair in pairs]
    return [list(words.values()) for words in by_key]


def _values_as_typed(key: str, value: Any, schema: type) -> str:
    """Return the values of a key of `params`: a list is several, unless one value of the key is itself a list."""
    if isinstance(value, list) and split_literal(f"{key}=", schema):
        return f"choice({','.join(_quoted(_as_typed(key, item)) for item in value)})"
    about = key_table(schema).get(key.lstrip("+"))
    holds_lists = about is not None and get_origin(about.type) is list
    several = isinstance(value, list) and not (holds_lists and not any(isinstance(item, list) for item in value))
    return ",".join(_as_typed(key, item) for item in value) if several else _as_typed(key, value)


def _as_typed(key: str, value: Any, one: bool = False) -> str:
    """Return a value of a file as it is typed; of `one` value, a text that is more to Hydra's grammar is quoted."""
    if isinstance(value, list):
        return f"[{','.join(_as_typed(key, item, one) for item in value)}]"
    plain = not isinstance(value, str) or split_literal(f"{key}=x") or re.fullmatch(r"[\w./+-]+", value)
    return typed(value) if plain or not one else quote(str(value))


def groups(folders: Iterable[Path] = (CONF,)) -> dict[str, list[str]]:
    """Return the config groups and their options: the folders of conf/ and the files in them."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*/[!_]*.yaml")):  # a file with a leading underscore is a base of others
            found.setdefault(file.parent.name, []).append(file.stem)
    return found


def groups_for(schema: type, folders: Iterable[Path] = (CONF,)) -> dict[str, list[str]]:
    """Return the groups that a command's configuration is composed of, and any in folders of the user's own."""
    parts = {field.name for field in dataclasses.fields(schema)}
    parts |= {"debug"} if "trainer" in parts else set()  # presets over a whole run, not a part of it
    foreign = groups().keys() - parts
    return {group: options for group, options in groups(folders).items() if group not in foreign}


def keys(schema: type) -> list[str]:
    """Return every key of the schema, dotted, groups included: `data`, `data.seq_len`."""
    return list(dict.fromkeys(one for key in key_table(schema) for one in accumulate(key.split("."), "{}.{}".format)))


def without_null_groups(overrides: Iterable[str]) -> list[str]:
    """Return the overrides less `experiment=null` and the like: null is the default, and Hydra cannot parse it."""
    nulls = {f"{group}=null" for group in groups()}
    return [override for override in overrides if override.lower() not in nulls]


# Words of other programs, such as lightning-hydra-template -> the key here, in commands that have it
MEANT = {
    **dict.fromkeys(("epochs", "num_epochs", "max_epoch"), "trainer.max_epochs"),
    **dict.fromkeys(("task_name", "run_name"), "name"),
    **{"learning_rate": "optimizer.lr", "temp": "temperature", "output_dir": "runs", "ckpt_path": "checkpoint"},
}
FOR_TRAIN = {  # likewise, of src.train
    "ckpt_path": "resume=RUN (to go on) or init_from=RUN (its weights alone), or python -m src.evaluate run=RUN",
    "gpus": "trainer.accelerator=gpu trainer.devices=N",
    "fast_dev_run": "debug=fast",
    "hparams_search": "python -m src.search search=NAME",
}
MEANT_BY = {  # an option of a group -> what to write here
    **{("trainer", name): f"trainer.accelerator={name}" for name in ("gpu", "cpu", "mps")},
    ("trainer", "ddp"): "trainer.strategy=ddp trainer.devices=N",
    ("debug", "fdr"): "debug=fast",
    ("debug", "default"): "debug=fast",
    ("callbacks", "early_stopping"): "early_stopping.enabled=true",
}


def errors_in_overrides(overrides: Iterable[str], schema: type, folders: Iterable[Path] = (CONF,)) -> dict[str, str]:
    """Return what is wrong with each override by itself, {override: message}; those of Hydra's own are left to it."""
    options, known = groups_for(schema, folders), keys(schema)
    found = {override: _error(override, options, known, schema) for override in overrides}
    return {override: message for override, message in found.items() if message}


def _error(text: str, options: dict[str, list[str]], known: list[str], schema: type) -> str | None:
    if text.startswith("~") and not text.startswith("~hydra"):
        return f"{text}: nothing can be deleted; give the key another value ({text[1:].partition('=')[0]}=...)"
    if "=" not in text:
        return f"{text}: expected key=value{nearest(text, [*known, *options])}"
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason, key = str(error).splitlines()[0], text.partition("=")[0].lstrip("+")
        free = tuple(f"{group}." for group in ("hydra", *_free(schema)))
        if key not in (*known, *options) and not key.startswith((*free, "hydra/")):
            return f"{key}: there is no such key{_nearest_key(key, known, options)}"
        return f"{text}: Hydra cannot parse this value ({reason}); put it in quotes: 'key=\"...\"'"
    key = override.key_or_group
    if key == "hydra/launcher" and not override.is_delete():
        return error_in_launcher(str(override.value()))
    if re.match(r"hydra\.(run|sweep)\.|hydra\.job\.chdir$|hydra\.output_subdir$", key):
        return f"{text}: Hydra makes and changes no folders here; runs are written below runs=, in the folder name="
    if key.split(".")[0] == "hydra" or key.startswith("hydra/"):
        return None
    if override.is_add() and not override.is_force_add() and (key in known or key in groups()):
        return f"{text}: the key exists already; set it without the plus: {text.lstrip('+')}"
    if key in options:
        several = key in _free(schema)  # options side by side: logger=[tensorboard,wandb]
        required = several or any(one.startswith(f"{key}.") for one in key_table(schema))
        may_be_null = not required and not override.is_sweep_override()
        values = list(_values(override))
        if several:
            values = [one for value in values for one in (value if isinstance(value, list) else [value])]
        return next(filter(None, (_error_in_option(key, value, options[key], may_be_null) for value in values)), None)
    group = key.partition(".")[0]
    if group in options and group in _free(schema) and key.count(".") == 1:  # logger.name=csv, of older versions
        return f"{text}: expected {group}=NAME, NAME one of {', '.join(options[group])}, or {group}.NAME.KEY=..."
    if key not in known and not any(key.startswith(f"{free}.") for free in _free(schema)):
        return f"{key}: there is no such key{_nearest_key(key, known, options)}"
    return next(filter(None, (_error_in_value(key, value, schema) for value in _values(override))), None)


def first_of_several(text: str) -> str:
    """Return an override with the first of its values, where a sweep gives several."""
    override = OverridesParser.create().parse_override(text)
    if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
        return text
    first = next(override.sweep_iterator(transformer=Transformer.encode), None)
    return text if first is None else f"{override.get_key_element()}={first}"


def _values(override: Override) -> Iterator[Any]:
    if isinstance(override.value(), Glob):
        return  # matches options that exist
    if override.is_discrete_sweep():
        yield from override.sweep_iterator()
    elif not override.is_sweep_override():
        yield override.value()


def _error_in_option(group: str, option: Any, allowed: list[str], may_be_null: bool) -> str | None:
    if may_be_null if option is None else option in allowed:
        return None
    if meant := MEANT_BY.get((group, str(option))):
        return f"{group}={option}: did you mean {meant}?"
    option = "null" if option is None else option
    return f"{group}={option}: expected one of {', '.join(allowed)}{nearest(str(option), allowed)}"


def _free(schema: type) -> list[str]:
    """Return the keys whose values are mappings with keys of the user's own (model.options)."""
    return [key for key, about in key_table(schema).items() if str(about.type).startswith("dict")]


def _nearest_key(key: str, known: list[str], options: dict[str, list[str]]) -> str:
    """Return the nearest right key; a right last part (`hidden_size`, `lr`) gets the whole key."""
    leaf = key.rpartition(".")[2]
    meant = FOR_TRAIN.get(leaf) if "trainer" in known else None
    if meant := meant or (MEANT[leaf] if MEANT.get(leaf) in known else None):
        return f"; did you mean {meant}?"
    match = [one for one in known if one.rpartition(".")[2] == leaf]
    if leaf != key:
        match = difflib.get_close_matches(key, match, n=1, cutoff=0)
    match = match or difflib.get_close_matches(key, dict.fromkeys([*known, *options]), n=2)
    if len(match) == 2 and len({difflib.SequenceMatcher(None, one, key).ratio() for one in match}) == 2:
        match.pop()  # the second is named only if it is as near
    if not match:
        leaves = {one.rpartition(".")[2]: one for one in known}
        match = [leaves[like] for like in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)]
    return f"; did you mean {' or '.join(match[:3])}?" if match else f"; the groups are {', '.join(sorted(options))}"


_typed = functools.cache(OmegaConf.structured)  # to try values on; making one costs more than trying a hundred
TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
TYPES |= {list[float]: "a list of numbers", list[str]: "a list of names", list[int]: "a list of whole numbers"}


def _error_in_value(key: str, value: Any, schema: type) -> str | None:
    if isinstance(value, str) and "${" in value:
        return None  # an interpolation: its value is not known before composing
    try:
        OmegaConf.update(_typed(schema), key, value, merge=True)
        return None
    except OmegaConfBaseException:
        about = key_table(schema).get(key)
    if about is None:
        below = [k.removeprefix(f"{key}.") for k in key_table(schema) if k.startswith(f"{key}.")]
        text = str(value).lower() if isinstance(value, bool) else value
        likely = "enabled" if isinstance(value, bool) and "enabled" in below else below[0] if len(below) == 1 else None
        remedy = f"did you mean {key}.{likely}={text}?" if likely else f"{key}.KEY=..., KEY one of {', '.join(below)}"
        return f"{key}={text}: {key} has keys of its own; {remedy}"
    expected = f"{TYPES.get(about.type, str(about.type))}{' or null' if about.optional else ''}"
    one_name = expected.startswith("a list of names") and isinstance(value, str) and value
    listed = f"; did you mean {key}=[{value}]?" if one_name else ""
    return f"{key}={value!r}: expected {expected}{listed}"
