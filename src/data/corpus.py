"""A corpus: a text with a name, its vocabulary, and the pieces it is cut into before any window is."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from src.data import lines, named
from src.data.build import Part, build
from src.data.encoded import FORMAT, find, find_or_write
from src.data.errors import DataError, UnknownCharacter
from src.data.options import EXTEND, Options, complete, pair_of
from src.data.scan import remembered
from src.data.splits import LineSplit, PairSplit, Split, Splits, TextSplit
from src.data.text_files import Source
from src.data.text_files import find as find_files
from src.data.vocabulary import Vocabulary

NAMES = ("train", "val", "test")
OWN_SHARES = (0.9, 0.1)  # of a text without a standard split
LINE_SHARES = (0.8, 0.1, 0.1)  # of a list's items


@dataclass(frozen=True, eq=False)
class Corpus:
    """What a run trains on.

    splits      by name; one that the corpus lacks is refused with those it has
    provenance  plain data for run.json: files, checksums, conventions, counts
    key         names content and options: two corpora of one key are the same ids
    notes       what a user should be told at the start, a line each
    boundary    the symbol before, between and behind items, where the text is a list
    """

    name: str
    vocabulary: Vocabulary
    splits: Splits
    provenance: dict[str, Any]
    key: str
    notes: tuple[str, ...] = ()
    boundary: str | None = None


def open_corpus(*, vocabulary: Vocabulary | None = None, **options: Any) -> Corpus:
    """The corpus that the keys of the `data` group describe (src.data.options.Options).

    `vocabulary`: encode with this one (a run's own) instead of one made from the training split; `unknown` then says
    what becomes of characters that it lacks. Raises DataError, one or two lines a mistake (UnknownCharacter is one).
    """
    wanted = complete(options)
    if wanted.unknown == "extend" and vocabulary is None:
        raise DataError(EXTEND)  # it would take symbols of the held-out text into a vocabulary that train makes
    if wanted.name == "hello":
        return _pair(wanted, vocabulary)
    parts = _parts(wanted)
    sources = [source for part in parts for source in part.sources]
    if digests := remembered(sources):
        for source, digest in zip(sources, digests, strict=True):
            named.check(source, digest)
        key = _key(wanted, parts, digests, vocabulary)
        if found := find(key):
            return _corpus(wanted, key, *found, parts)
    text = build(wanted, parts, vocabulary)
    key = _key(wanted, parts, text.digests, vocabulary)
    return _corpus(wanted, key, *find_or_write(key, text.write), parts)


def _parts(options: Options) -> list[Part]:
    """The files of a corpus and how they are cut. Raises DataError where one is missing."""
    if options.name == "pydoc":
        shares = options.split or OWN_SHARES
        return [Part(NAMES[: len(shares)], [_pydoc()], shares)]
    if options.name in named.CORPORA:
        known = named.CORPORA[options.name]
        sources = named.sources(options.name, options.root)
        if known.split is None:
            return [Part((name,), [source]) for name, source in zip(NAMES, sources, strict=True)]
        shares = options.split or known.split
        return [Part(NAMES[: len(shares)], sources, shares)]
    held_out = [(name, path) for name, path in (("val", options.val_path), ("test", options.test_path)) if path]
    usual = (1.0,) if options.val_path else LINE_SHARES if options.items and not held_out else OWN_SHARES
    shares = options.split or usual
    parts = [Part(NAMES[: len(shares)], find_files(str(options.path)), shares)]
    return parts + [Part((name,), find_files(path, f"{name}_path")) for name, path in held_out]


def _pydoc() -> Source:
    """The help texts that ship inside CPython, in order of their topics."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError("this Python comes without pydoc_data; use another text (data=text data.path=...)") from error
    return Source("pydoc_data.topics", content="\n".join(topics[topic] for topic in sorted(topics)).encode())


def _key(options: Options, parts: list[Part], digests: list[str], vocabulary: Vocabulary | None) -> str:
    """What the ids depend on, and nothing else: content, rules, cuts, vocabulary; not where the files lie."""
    content = {
        "format": FORMAT,
        "digests": digests,
        "parts": [[part.names, len(part.sources), part.shares] for part in parts],
        "rules": options.rules.plain(),
        "items": options.split_seed if options.items else None,
        "unknown": options.unknown,
        "published": options.name if options.name in named.CORPORA and named.CORPORA[options.name].alphabet else None,
        "vocabulary": vocabulary.to_plain() if vocabulary else None,
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _corpus(options: Options, key: str, ids: np.ndarray, facts: dict[str, Any], parts: list[Part]) -> Corpus:
    """An encoded text as a corpus."""
    vocabulary = Vocabulary.from_plain(facts["vocabulary"])
    splits = Splits()
    for name in NAMES:
        if name in facts["spans"]:
            piece = ids[slice(*facts["spans"][name])]
            split: Split = TextSplit(name, piece)
            if options.items:
                split = LineSplit(name, piece, int(vocabulary.encode(lines.BOUNDARY)[0]))
            splits[name] = split
    notes = [*facts["notes"]]
    if where := facts.get("unkept"):
        notes.append(f"the cache folder {where} cannot be written: the text was encoded for this process only")
    record = _provenance(options, key, facts, parts, splits)
    boundary = lines.BOUNDARY if options.items else None
    return Corpus(options.name, vocabulary, splits, record, key, tuple(notes), boundary)


def _provenance(options: Options, key: str, facts: dict[str, Any], parts: list[Part], splits: Splits) -> dict[str, Any]:
    sources = [source for part in parts for source in part.sources]
    digests = facts["digests"]
    record: dict[str, Any] = {
        "sha256": digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "bytes": sum(facts["sizes"]),
        "files": [
            {"path": source.name, "sha256": digest, "bytes": size, "address": source.address}
            for source, digest, size in zip(sources[:20], digests, facts["sizes"], strict=False)
        ],
        "file_count": len(sources),
        "key": key,
        "characters": {name: len(split) for name, split in splits.items()},
        "transitions": {name: split.transitions for name, split in splits.items()},
        "split": [list(part.shares) for part in parts] if len(parts) > 1 else list(parts[0].shares),
        "unused": facts["unused"],
        "rules": options.rules.plain(),
        "cleaned": facts["cleaned"],
        "unknown": options.unknown,
        "mapped": facts["mapped"],
    }
    if options.name == "ptb":
        record["convention"] = options.convention
    if options.name == "pydoc":
        record["python"] = ".".join(map(str, sys.version_info[:3]))
    if options.items:
        record["split_seed"] = options.split_seed
        record["items"] = {name: len(split.starts) for name, split in splits.items() if isinstance(split, LineSplit)}
    return record


def _pair(options: Options, vocabulary: Vocabulary | None) -> Corpus:
    """The tutorial's one sequence: an input, the target of each step, and the vocabulary in the order given."""
    word, target, symbols = pair_of(options.input, options.target, options.symbols)
    if vocabulary is None:
        vocabulary = Vocabulary.of(symbols)
    elif options.unknown == "extend":
        vocabulary = vocabulary.extend(word + target)
    elif options.unknown == "map":
        vocabulary = vocabulary.with_unknown()
    try:
        inputs, targets = (vocabulary.encode(text).astype(np.int64) for text in (word, target))
    except UnknownCharacter as error:
        remedy = "data.unknown=extend adds one symbol for each, data.unknown=map one for all of them"
        raise error.with_remedy(remedy) from None
    plain = json.dumps([word, target, vocabulary.to_plain()]).encode()
    record = {"input": word, "target": target, "symbols": symbols, "characters": {"train": len(word)}}
    splits = Splits(train=PairSplit("train", inputs, targets))
    return Corpus("hello", vocabulary, splits, record, hashlib.sha256(plain).hexdigest()[:32])
