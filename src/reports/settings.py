"""A run's configuration as flat `key -> value`, and which keys could have changed its result.

`model: {name: manual, hidden_size: 128}` becomes `model = manual, model.hidden_size = 128`. Two runs belong to the
same row of a table where all settings that matter are equal; the seed is what is averaged over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

Value = str | int | float
Settings = dict[str, Value]

# Whole names of choices: what they bring along (an experiment's sizes, a corpus' learning rate) follows from them.
BUNDLES = ("experiment", "data", "model", "optimizer", "scheduler")

# What cannot change the result, or only names it, stores it or looks at it. `experiment` stands for the keys it sets.
# `threads` moves last digits only. Cadences decide when we look; "--at best" sees more where we looked more often.
CANNOT_MATTER = (
    "seed", "name", "experiment", "command", "debug", "runs", "resume", "rerun", "run_dir", "output_dir", "verbose",
    "hydra.*", "launcher.*", "sweep.*", "sweeper.*", "paths.*", "logger", "logger.*",
    "callbacks", "callbacks.*", "checkpoint.enabled", "checkpoint.every_*", "checkpoint.keep*", "checkpoint.save*",
    "data.root", "data.cache*", "data.num_workers", "data.pin_memory", "data.progress*", "data.download*",
    "trainer.threads", "trainer.log_every_n_steps", "trainer.val_check_interval", "trainer.check_val_every_n_epoch",
    "trainer.enable_*", "trainer.num_sanity_val_steps", "trainer.default_root_dir", "trainer.logger",
    "trainer.callbacks", "trainer.profile", "trainer.detect_anomaly",
)  # fmt: skip
# Exceptions to the above: it ends training early, so it does matter.
MATTERS_ALL_THE_SAME = ("callbacks.early_stopping.*",)


def flatten(config: Mapping[str, Any]) -> Settings:
    """The leaves of `config` by dotted key, less those that are null: a key set to nothing equals a key not there.

    A mapping's `name` (else the last part of its `_target_`) becomes the value of the mapping itself. Lists are
    written as JSON, booleans as `true` and `false` (in Python, True equals 1).
    """
    flat: Settings = {}
    _flatten(config, "", flat)
    return flat


def _flatten(node: Mapping[str, Any], path: str, flat: Settings) -> None:
    named = path and isinstance(node.get("name"), str)
    for key, value in node.items():
        where = f"{path}.{key}" if path else str(key)
        if value is None:
            continue
        if path and key == "name" and named:
            flat[path] = value
        elif key == "_target_":
            if path and not named:
                flat[path] = str(value).rpartition(".")[2]
        elif isinstance(value, Mapping):
            _flatten(value, where, flat)
        elif isinstance(value, bool):
            flat[where] = "true" if value else "false"
        elif isinstance(value, (str, int, float)):
            flat[where] = value
        else:
            flat[where] = json.dumps(value, ensure_ascii=False, default=str)


@lru_cache(maxsize=65536)
def can_matter(key: str, ignored: tuple[str, ...] = (), kept: str | None = None) -> bool:
    """Whether `key` may have changed a result: not in the list above, nor among the patterns `ignored`.

    `kept` is a key somebody asks about; it counts whatever the lists say.
    """
    if key == kept:
        return True
    if any(fnmatchcase(key, pattern) or fnmatchcase(key, f"{pattern}.*") for pattern in ignored):
        return False
    if any(fnmatchcase(key, pattern) for pattern in MATTERS_ALL_THE_SAME):
        return True
    return not any(fnmatchcase(key, pattern) for pattern in CANNOT_MATTER)


def relevant(
    settings: Settings, seed: int | None, ignored: Iterable[str] = (), kept: str | None = None
) -> tuple[tuple[str, Value], ...]:
    """The settings that identify a row, sorted by key.

    A second key that holds the seed (`data.seed: ${seed}`, resolved) is the seed, not a setting.
    """
    patterns = tuple(ignored)
    return tuple(
        sorted(
            (
                (key, value)
                for key, value in settings.items()
                if can_matter(key, patterns, kept) and not (key.endswith(".seed") and value == seed and key != kept)
            ),
            key=lambda item: item[0],
        )
    )


def differing(many: Iterable[Mapping[str, Value]]) -> list[str]:
    """The keys that have more than one value (or are missing somewhere), bundles first, else in the order met."""
    rows = list(many)
    keys: dict[str, None] = {}
    for row in rows:
        keys.update(dict.fromkeys(row))
    found = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    first = [key for key in BUNDLES if key in found]
    return first + [key for key in found if key not in first]


def followers(keys: Sequence[str], rows: Sequence[Mapping[str, Value]], many: int) -> dict[str, str]:
    """Those of `keys` that another choice brings along: key -> the bundle that determines it over these rows.

    An lstm has no nonlinearity: that is no second difference. `data=hello` against `data=tiny_shakespeare` also
    changes a dozen sizes and rates; beyond `many` keys those that say nothing new are followers too.
    """
    found: dict[str, str] = {}
    missing = {key for key in keys if any(key not in row for row in rows)}
    leaders = [key for key in BUNDLES if key in keys and key not in missing]
    for leader in leaders:
        if leader in found:
            continue
        for key in keys:
            if key in found or key in leaders[: leaders.index(leader) + 1]:
                continue
            own = key.startswith(f"{leader}.") and key in missing
            if not own and len(keys) <= many:
                continue
            pairs = {(row.get(leader), row.get(key)) for row in rows}
            if len(pairs) == len({row.get(leader) for row in rows}):
                found[key] = leader
    return found


def telling(rows: Sequence[Mapping[str, Value]], many: int = 5) -> tuple[list[str], dict[str, str]]:
    """What tells these rows apart, and what only follows from it: (keys, followers)."""
    found = differing(rows)
    following = followers(found, rows, many)
    return [key for key in found if key not in following], following


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Each key by its last part where that is unmistakable among `keys`, else whole."""
    names = list(keys)
    tails = [name.rpartition(".")[2] for name in names]
    return {name: tail if tails.count(tail) == 1 else name for name, tail in zip(names, tails, strict=True)}


def show(value: Value | None) -> str:
    """A setting for a person's eye, numbers to six digits (CSV has them all); a missing one as a dash."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def in_order(value: Value | None) -> tuple[int, int | float, str]:
    """A key that sorts settings: missing ones, then numbers by size, then words."""
    if value is None:
        return 0, 0.0, ""
    return (2, 0.0, value) if isinstance(value, str) else (1, value, "")


def label(settings: Mapping[str, Value], keys: Iterable[str]) -> str:
    """`model manual, hidden_size 128`: what tells this row from the others."""
    names = short_names(keys)
    return ", ".join(f"{names[key]} {show(settings[key])}" for key in names if key in settings)
