"""A corpus: its texts as ids, the vocabulary of its training split, its splits, and the record of how it was read.

A text is read twice, the first time to know its checksum and its symbols, the second time to encode it; then it is
found in the cache (src.data.encoding).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from src.config.schema import DataConfig
from src.data import encoding as cache
from src.data.corpora import CORPORA, EXTEND, check, errors_in_data, is_list, pair_of, sources
from src.data.encoding import FORMAT, Facts, Scan, scan
from src.data.splits import BOUNDARY, LineSplit, PairSplit, Splits, TextSplit, draw_items, edges_of
from src.data.text_reader import CLEANED, Piece, Source, find, pieces, rules_of
from src.data.vocabulary import Vocabulary
from src.errors import DataError, UnknownCharacter, counted

NAMES = ("train", "val", "test")
TEXT_SHARES = (0.9, 0.1)  # of a text without a standard split
LIST_SHARES = (0.8, 0.1, 0.1)  # of the items of a list
Missing = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> offsets and codes of what a vocabulary lacks
Spans = dict[str, list[int]]  # start and end of each split in the ids of all texts


@dataclass(frozen=True, eq=False)
class Corpus:
    """What a run trains on.

    splits      by name
    provenance  plain data for run.json: files, checksums, rules, counts
    key         of content and options: two corpora with the same key have the same ids
    notes       what a user should know at the start, one line each
    """

    name: str
    vocabulary: Vocabulary
    splits: Splits
    provenance: dict[str, Any]
    key: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Files that are read as one text, and the splits that it is cut into, by `shares`."""

    names: tuple[str, ...]
    sources: list[Source]
    shares: tuple[float, ...] = (1.0,)


def open_corpus(config: DataConfig, vocabulary: Vocabulary | None = None) -> Corpus:
    """Open the corpus that the `data` group describes; its windows are left to src.data.batching.

    Args:
        config: the text and how it is read and split.
        vocabulary: encode with this one (of an earlier run) instead of one made from the training split;
            `config.unknown` then says what is done with characters that it lacks.

    Raises:
        DataError: keys that do not go together, a text that is missing, too short or not text.
        UnknownCharacter: characters that the vocabulary lacks (a DataError too).
    """
    errors = errors_in_data(config)
    if config.unknown == "extend" and vocabulary is None:  # it would add symbols of the held-out text
        errors.append(EXTEND)
    if errors:
        raise DataError(*errors)
    if config.name == "hello":
        return _open_pair(config, vocabulary)
    if vocabulary and vocabulary.kind != (encoding := config.encoding):
        kind = vocabulary.kind
        raise DataError(f"data.encoding={encoding}: the vocabulary is of {kind}; set data.encoding={kind}")
    parts = _parts(config)
    files = [source for part in parts for source in part.sources]
    if digests := cache.remembered_digests(files):
        for source, digest in zip(files, digests, strict=True):
            check(source, digest)
        key = _key(config, parts, digests, vocabulary)
        if found := cache.find_ids(key):
            return _corpus(config, key, *found, parts)
    return _encode(config, parts, files, vocabulary)


def _parts(config: DataConfig) -> list[Part]:
    """Return the files of a corpus and the shares that they are cut into. Raises DataError if one is missing."""
    own = tuple(map(float, config.split)) if config.split is not None else None
    if config.name in CORPORA:
        files, standard = sources(config.name, config.root), CORPORA[config.name].split
        if standard is None:
            return [Part((name,), [source]) for name, source in zip(NAMES, files, strict=True)]
        return [Part(NAMES[: len(own or standard)], files, own or standard)]
    held_out = [(name, path) for name, path in (("val", config.val_path), ("test", config.test_path)) if path]
    usual = (1.0,) if config.val_path else LIST_SHARES if is_list(config) and not held_out else TEXT_SHARES
    files = [_pydoc()] if config.name == "pydoc" else find(str(config.path))
    first = Part(NAMES[: len(own or usual)], files, own or usual)
    return [first, *(Part((name,), find(path, f"{name}_path")) for name, path in held_out)]


def _pydoc() -> Source:
    """Return the help texts that are part of CPython, sorted by topic."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError("data=pydoc: this Python has no pydoc_data; use another text, as data=text") from error
    return Source("pydoc_data.topics", content="\n".join(topics[topic] for topic in sorted(topics)).encode())


def _key(config: DataConfig, parts: list[Part], digests: list[str], vocabulary: Vocabulary | None) -> str:
    """Return the hash of everything that the ids depend on: content, rules, splits, vocabulary; not the paths."""
    content = {
        "format": FORMAT,
        "digests": digests,
        "parts": [[part.names, len(part.sources), part.shares] for part in parts],
        "rules": rules_of(config),
        "items": config.split_seed if is_list(config) else None,
        "unknown": config.unknown,
        "published": config.name if config.name in CORPORA and CORPORA[config.name].alphabet else None,
        "vocabulary": vocabulary.to_plain() if vocabulary else None,
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


# -- a text that is not in the cache ----------------------------------------------------------------------------------


def _encode(config: DataConfig, parts: list[Part], files: list[Source], given: Vocabulary | None) -> Corpus:
    """Read the parts, decide on splits and vocabulary, and write the ids."""
    stamps = [source.stamp() for source in files]
    texts, reading = parts, config
    if is_list(config):
        texts, scans = _draw(parts, config)
        reading = DataConfig("text", encoding=config.encoding)  # items that are drawn are clean
        text_scans = [scan(text.sources, reading) for text in texts]
    else:
        scans = text_scans = [scan(part.sources, config) for part in parts]
    digests = [digest for one in scans for digest in one.digests]
    for source, digest in zip(files, digests, strict=True):
        check(source, digest)
    cache.remember_digests(stamps, digests)

    def symbols() -> Iterator[Piece]:
        return itertools.chain.from_iterable(pieces(text.sources, reading) for text in texts)

    spans, unused = _spans(texts, [one.length for one in text_scans])
    vocabulary = given or _vocabulary(config, text_scans[0].first, spans["train"][1])
    lacks = {code for one in text_scans for code in one.first} - set(vocabulary.codes)
    missing = _missing(symbols(), spans, vocabulary) if lacks else {}  # those in no split do not matter
    vocabulary, notes, mapped = _with_missing(config, vocabulary, missing, given)
    facts = {
        "vocabulary": vocabulary.to_plain(),
        "length": sum(one.length for one in text_scans),
        "spans": spans,
        "sizes": [size for one in scans for size in one.sizes],
        "digests": digests,
        "notes": notes,
        "cleaned": {name: sum(one.counts[name] for one in scans) for name in CLEANED},
        "mapped": mapped,
        "unused": unused,
    }

    def write(stream: BinaryIO) -> Facts:
        cache.write_ids(stream, symbols(), vocabulary)
        for source, stamp in zip(files, stamps, strict=True):
            if source.stamp() != stamp:
                raise DataError(f"{source.name} was changed while it was read; start again")
        return facts

    key = _key(config, parts, digests, given)
    return _corpus(config, key, *cache.find_or_write_ids(key, write), parts)


def _draw(parts: list[Part], config: DataConfig) -> tuple[list[Part], list[Scan]]:
    """Return the splits of a list, each as a text in memory, and what was found in its files."""
    drawn, scans = [], []
    for part in parts:
        kept: list[bytes] = []
        scans.append(scan(part.sources, config, kept.append))
        texts = draw_items(b"".join(kept), part.shares, config.split_seed, part.sources[0].name)
        drawn += [Part((name,), [Source(name, content=text)]) for name, text in zip(part.names, texts, strict=True)]
    return drawn, scans


def _spans(texts: list[Part], lengths: list[int]) -> tuple[Spans, int]:
    """Return where each split is in the ids of all texts, and how many characters are in no split."""
    spans, start, unused = {}, 0, 0
    for text, length in zip(texts, lengths, strict=True):
        edges = edges_of(length, text.shares)
        for name, (low, high) in zip(text.names, itertools.pairwise(edges), strict=True):
            spans[name] = [start + low, start + high]
            if high - low < 2:
                raise DataError(
                    f"{text.sources[0].name} is too short: of its {length:,} characters the split {name} gets "
                    f"{high - low}, and it needs one to read and one to predict; use a longer text"
                )
        unused += length - edges[-1]
        start += length
    return spans, unused


def _vocabulary(config: DataConfig, first: dict[int, int], end: int) -> Vocabulary:
    """Return the symbols whose first occurrence is before the end of the training split, or the published ones."""
    published = CORPORA[config.name].alphabet if config.name in CORPORA else None
    if published and config.encoding == "bytes" and not config.lowercase:
        return Vocabulary(tuple(sorted(published)), "bytes")
    return Vocabulary(tuple(sorted(code for code, at in first.items() if at < end)), config.encoding)


def _missing(symbols: Iterable[Piece], spans: Spans, vocabulary: Vocabulary) -> Missing:
    """Return the symbols of each split that the vocabulary lacks, if there are any."""
    lacks = vocabulary.table == (-1 if vocabulary.unknown_id is None else vocabulary.unknown_id)
    offsets, codes, length = [], [], 0
    for piece in symbols:
        array = np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else piece
        at = np.flatnonzero(lacks[array])
        offsets.append(at + length)
        codes.append(array[at].astype(np.uint32))
        length += len(piece)
    offset, code = np.concatenate(offsets), np.concatenate(codes)
    inside = {name: slice(*np.searchsorted(offset, span)) for name, span in spans.items()}
    return {name: (offset[own] - spans[name][0], code[own]) for name, own in inside.items() if own.start < own.stop}


def _with_missing(
    config: DataConfig, vocabulary: Vocabulary, missing: Missing, given: Vocabulary | None
) -> tuple[Vocabulary, list[str], dict[str, int]]:
    """Return the vocabulary by the rule `config.unknown`, notes, and how many symbols became unknown, by split.

    Raises:
        UnknownCharacter: by the rule missing characters are an error.
    """
    kind, rule = config.encoding, config.unknown
    if not missing:
        return (vocabulary.with_unknown() if rule == "map" else vocabulary), [], {}
    rule = rule or ("map" if given is None or given.unknown_id is not None else "error")
    distinct = {name: np.unique(codes).tolist() for name, (_, codes) in missing.items()}
    if rule == "error":
        name, (offsets, _) = next(iter(missing.items()))
        extend = ", data.unknown=extend one for each" if given is not None else ""
        remedy = f"data.unknown=map makes one symbol for all of them{extend}"
        where = f"{config.name}: {name}"
        raise vocabulary.unknown_error(distinct[name], len(offsets), int(offsets[0]), where, remedy)
    if rule == "extend":
        added = {code for codes in distinct.values() for code in codes}
        note = f"vocabulary: {counted(len(added), kind)} added to the {len(vocabulary)} it had"
        return vocabulary.extend_codes(added), [note], {}
    mapped = {name: len(offsets) for name, (offsets, _) in missing.items()}
    notes = [
        f"{name}: {counted(number, kind)} ({len(distinct[name])} distinct) not in the vocabulary; "
        "one unknown symbol represents them, and the uniform guess counts it"
        for name, number in mapped.items()
    ]
    return vocabulary.with_unknown(), notes, mapped


# -- ids as a corpus --------------------------------------------------------------------------------------------------


def _corpus(config: DataConfig, key: str, ids: np.ndarray, facts: Facts, parts: list[Part]) -> Corpus:
    """Return the corpus of encoded parts."""
    vocabulary, splits = Vocabulary.from_plain(facts["vocabulary"]), Splits()
    for name in NAMES:
        if name in facts["spans"]:
            own = ids[slice(*facts["spans"][name])]
            boundary = int(vocabulary.encode(BOUNDARY)[0]) if is_list(config) else None
            splits[name] = TextSplit(name, own) if boundary is None else LineSplit(name, own, boundary)
    notes = [*facts["notes"]]
    if folder := facts.get("unkept"):
        notes.append(f"the cache folder {folder} cannot be written: the text was encoded for this process only")
    record = _provenance(config, key, facts, parts, splits)
    return Corpus(config.name, vocabulary, splits, record, key, tuple(notes))


def _provenance(config: DataConfig, key: str, facts: Facts, parts: list[Part], splits: Splits) -> dict[str, Any]:
    """Return the record of a text for run.json."""
    files, digests = [source for part in parts for source in part.sources], facts["digests"]
    record: dict[str, Any] = {
        "sha256": digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "bytes": sum(facts["sizes"]),
        "files": [
            {"path": source.name, "sha256": digest, "bytes": size, "address": source.address}
            for source, digest, size in zip(files[:20], digests, facts["sizes"], strict=False)
        ],
        "file_count": len(files),
        "key": key,
        "characters": {name: len(split) for name, split in splits.items()},
        "transitions": {name: split.transitions for name, split in splits.items()},
        "split": [list(part.shares) for part in parts] if len(parts) > 1 else list(parts[0].shares),
        "unused": facts["unused"],
        "rules": rules_of(config),
        "cleaned": facts["cleaned"],
        "unknown": config.unknown,
        "mapped": facts["mapped"],
    }
    if config.name == "ptb":
        record["convention"] = config.convention
    if config.name == "pydoc":
        record["python"] = ".".join(map(str, sys.version_info[:3]))
    if is_list(config):
        record["split_seed"] = config.split_seed
        record["items"] = {name: len(split.starts) for name, split in splits.items() if isinstance(split, LineSplit)}
    return record


def _open_pair(config: DataConfig, vocabulary: Vocabulary | None) -> Corpus:
    """Return the tutorial's one sequence: an input, the target of each step, and the vocabulary in the order given."""
    word, target, symbols = pair_of(config)
    if vocabulary is None:
        vocabulary = Vocabulary.of(symbols)
    elif config.unknown == "extend":
        vocabulary = vocabulary.extend(word + target)
    elif config.unknown == "map":
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
