# NOTE (17:32): uncommitted edits to corpus.py layout.py vocabulary.py windows.py were reverted to HEAD by an accidental git checkout by the lead; please write them again, then commit. Delete this line.
"""A corpus: a text with a name, its vocabulary, and the pieces it is cut into before any window is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from src.data.errors import DataError
from src.data.splits import PairSplit, Splits, TextSplit
from src.data.vocabulary import Vocabulary

TINY_SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True, eq=False)
class Corpus:
    """What a run trains on: `splits` by name, the `vocabulary` they are encoded in, and where all of it comes from."""

    name: str
    vocabulary: Vocabulary
    splits: Splits
    provenance: dict[str, Any]
    key: str
    notes: tuple[str, ...] = field(default=())
    boundary: str | None = None


def open_corpus(*, name: str, vocabulary: Vocabulary | None = None, **options: Any) -> Corpus:
    """The corpus that the keys of the `data` config group describe."""
    if name == "hello":
        return pair(vocabulary, **{key: options.get(key) for key in ("input", "target", "symbols")})
    if name == "text":
        if not options.get("path"):
            raise DataError("data=text needs a text: data.path=FILE")
        path = Path(options["path"])
    else:
        path = Path(options.get("root") or ".") / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if name == "tiny_shakespeare" and digest != TINY_SHAKESPEARE:
        raise DataError(f"{path} has sha256 {digest}, expected {TINY_SHAKESPEARE}; fetch the file again")
    text = content.decode("utf-8")
    names, sizes = ("train", "val", "test"), options.get("split") or [0.9, 0.1]
    edges = [int(sum(Fraction(str(size)) for size in sizes[:count]) * len(text)) for count in range(len(sizes) + 1)]
    vocabulary = vocabulary or Vocabulary.from_text(text[: edges[1]])
    splits = Splits()
    for index in range(len(sizes)):
        piece = text[edges[index] : edges[index + 1]]
        splits[names[index]] = TextSplit(names[index], vocabulary.encode(piece))
    provenance = {"sha256": digest, "bytes": len(content), "characters": {key: len(split) for key, split in splits.items()}}
    return Corpus(name, vocabulary, splits, provenance, digest)


def pair(vocabulary: Vocabulary | None, input: str | None, target: str | None, symbols: str | None) -> Corpus:
    """The tutorial's one sequence: an input, the target of each step, and the vocabulary in the order given."""
    input, target, symbols = input or "hello", target or "ohlol", symbols or "ehlo"
    if len(input) != len(target):
        raise DataError(f"data.input has {len(input)} characters and data.target {len(target)}; each step needs one target")
    vocabulary = vocabulary or Vocabulary.of(symbols)
    inputs, targets = (vocabulary.encode(text).astype(np.int64) for text in (input, target))
    key = hashlib.sha256(repr((input, target, vocabulary.codes)).encode()).hexdigest()
    provenance = {"input": input, "target": target, "characters": {"train": len(input)}}
    return Corpus("hello", vocabulary, Splits(train=PairSplit("train", inputs, targets)), provenance, key)
