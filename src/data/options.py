"""The options of the `data` group: what they may be, and every mistake that they show by themselves, without a text."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from src.data.corpora import CORPORA
from src.data.text_reader import Rules
from src.data.vocabulary import Kind
from src.errors import DataError, nearest

OWN = ("hello", "text", "lines", "pydoc")  # the corpora that have no address
CHOICES = {
    "encoding": ("characters", "bytes"),
    "errors": ("strict", "replace"),
    "unknown": (None, "error", "map", "extend"),
    "convention": ("stripped", "raw"),
    "offset": ("fixed", "random"),
    "reset": ("never", "epoch"),
}
EXTEND = "data.unknown=extend is for init_from=RUN, whose vocabulary it adds to; use data.unknown=map or error"
COUNTS = ("seq_len", "batch_size", "evaluation_streams")


@dataclass(frozen=True)
class Options:
    """What `open_corpus` takes, with the defaults; the meaning of each stands in conf/data/*.yaml."""

    name: str
    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    root: str | None = None
    encoding: Kind = "characters"
    lowercase: bool = False
    errors: str = "strict"
    separator: str = "\n"
    split: tuple[float, ...] | None = None
    split_seed: int = 0
    unknown: str | None = None
    convention: str = "stripped"
    input: str | None = None
    target: str | None = None
    symbols: str | None = None

    @property
    def items(self) -> bool:
        """Whether the text is a list of items, one a line."""
        return self.name == "lines" or (self.name in CORPORA and CORPORA[self.name].items)

    @property
    def rules(self) -> Rules:
        """How the files become symbols."""
        blank = self.name == "ptb" and self.convention == "stripped"
        return Rules(self.encoding, self.lowercase, self.errors, self.separator, blank)


def complete(options: dict[str, Any]) -> Options:
    """The options, checked, without those of windows. Raises DataError with all their mistakes."""
    if mistakes := check(**options):
        raise DataError(*mistakes)
    if options.get("split") is not None:
        options = options | {"split": tuple(float(share) for share in options["split"])}
    return Options(**{key: value for key, value in options.items() if key in Options.__dataclass_fields__})


def check(**options: Any) -> list[str]:
    """All mistakes that the options of the `data` group (windows included) show by themselves; no file is opened."""
    names = (*OWN, *CORPORA)
    known = (*Options.__dataclass_fields__, "offset", "reset", *COUNTS)
    mistakes = [f"data.{key} is no option of a corpus{nearest(key, known)}" for key in options if key not in known]
    name = options.get("name")
    if name not in names:
        return [
            *mistakes,
            f"data={name}: there is no such corpus; there are {', '.join(names)}{nearest(str(name), names)}",
        ]
    for key, allowed in CHOICES.items():
        if key in options and options[key] not in allowed:
            words = tuple("null" if word is None else word for word in allowed)
            mistakes.append(
                f"data.{key}={options[key]}: it must be one of {', '.join(words)}{nearest(str(options[key]), words)}"
            )
    for key in COUNTS:
        if key in options and (not isinstance(options[key], int) or isinstance(options[key], bool) or options[key] < 1):
            mistakes.append(f"data.{key}={options[key]}: it must be a whole number of 1 or more")
    seed = options.get("split_seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        mistakes.append(f"data.split_seed={seed}: it must be a whole number of 0 or more")
    mistakes += _separator(str(options.get("separator", "")), options.get("encoding") == "bytes")
    own = name in ("text", "lines")
    if own and not options.get("path"):
        mistakes.append(f"data={name} needs a text: data.path= a file, a folder or a glob")
    for key in ("path", "val_path", "test_path"):
        if not own and options.get(key):
            mistakes.append(f"data.{key} is for data=text and data=lines; data={name} knows its text")
    if options.get("root") and name not in CORPORA:
        mistakes.append(f"data.root is for corpora with an address ({', '.join(CORPORA)}), not for data={name}")
    if name != "hello":
        mistakes += [
            f"data.{key} is for data=hello; data={name} reads a text"
            for key in ("input", "target", "symbols")
            if options.get(key)
        ]
    return mistakes + _split(name, options) + (_pair(**options) if name == "hello" else [])


def _separator(text: str, bytewise: bool) -> list[str]:
    try:
        text.encode("utf-8", "surrogateescape" if bytewise else "strict")
    except UnicodeEncodeError:
        way_out = "leave it out" if bytewise else "data.encoding=bytes takes a lone byte"
        return [f"data.separator={text!r} has a lone surrogate, which is no character; {way_out}"]
    return []


def _split(name: str, options: dict[str, Any]) -> list[str]:
    shares = options.get("split")
    if shares is None:
        return []
    if name == "hello" or (name in CORPORA and CORPORA[name].split is None):
        return [f"data.split={list(shares)}: data={name} is not cut by shares; leave it null"]
    if options.get("val_path"):
        return [
            f"data.split={list(shares)}: with data.val_path all of data.path is for training; leave one of the two out"
        ]
    try:
        exact = [Fraction(str(share)) for share in shares]
    except (ValueError, TypeError):
        return [f"data.split={shares}: it must be shares such as [0.9,0.1] or [0.8,0.1,0.1]"]
    if not 1 <= len(exact) <= 3 or any(share <= 0 for share in exact) or sum(exact) > 1:
        return [
            f"data.split={list(shares)}: it must be one to three shares (train, val, test) above 0 that add up to at "
            "most 1, such as [0.9,0.1] or [0.8,0.1,0.1]"
        ]
    if options.get("test_path") and len(exact) == 3:
        return [
            f"data.split={list(shares)}: the third share is a test split, and so is data.test_path; give two shares"
        ]
    return []


def _pair(input: str | None = None, target: str | None = None, symbols: str | None = None, **_: Any) -> list[str]:
    given = pair_of(input, target, symbols)
    mistakes = [
        f"data.{key} is empty: expected a text; leave it out for the tutorial's"
        for key, text in (("input", input), ("target", target), ("symbols", symbols))
        if text == ""
    ]
    if len(given[0]) != len(given[1]):
        mistakes.append(
            f"data.input={given[0]} has {len(given[0])} characters and data.target={given[1]} has {len(given[1])}; "
            "each step needs one target"
        )
    if len(set(given[2])) != len(given[2]):
        mistakes.append(f"data.symbols={given[2]}: each symbol may stand there once")
    if missing := sorted(set(given[0] + given[1]) - set(given[2])):
        mistakes.append(f"data.symbols={given[2]} lacks {', '.join(missing)} of data.input and data.target; add it")
    return mistakes


def pair_of(input: str | None, target: str | None, symbols: str | None) -> tuple[str, str, str]:
    """The tutorial's word, its targets and its symbols, where none are given."""
    return input or "hello", target or "ohlol", symbols or "ehlo"
