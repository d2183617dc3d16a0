"""From files to ids, where the cache has nothing: read to learn the symbols, decide the vocabulary, read to encode."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np

from src.data import corpora as named
from src.data import text_reader as lines
from src.data.encoding import FORMAT, Facts, Scan, find, find_or_write, remember, remembered, scan, write_ids
from src.data.options import EXTEND, Options, complete, pair_of
from src.data.splits import LineSplit, PairSplit, Split, Splits, TextSplit
from src.data.text_reader import Counts, Piece, Rules, Source, pieces
from src.data.text_reader import find as find_files
from src.data.vocabulary import NO_CODE, Vocabulary
from src.errors import DataError, UnknownCharacter, counted


@dataclass(frozen=True)
class Part:
    """Files that are read as one text, and the splits that it gives: `shares` of it, or one split that is all of it."""

    names: tuple[str, ...]
    sources: list[Source]
    shares: tuple[float, ...] = (1.0,)


@dataclass
class Text:
    """A text that has been read once, its files while they had these `stamps`; `write` encodes it."""

    parts: list[Part]
    rules: Rules
    scans: list[Scan]
    vocabulary: Vocabulary
    digests: list[str]
    sizes: list[int]
    files: list[Source] = field(default_factory=list)
    stamps: list[list[Any]] = field(default_factory=list)
    facts: Facts = field(default_factory=dict)

    def write(self, stream: BinaryIO) -> Facts:
        """Encode all parts, one behind the other; returns what is to be known of them.

        Raises DataError where a file is no longer the one whose checksum names the entry: nothing of it is kept.
        """
        for part, found in zip(self.parts, self.scans, strict=True):
            if write_ids(stream, read(part, self.rules), self.vocabulary) != found.characters:
                raise DataError(f"{part.sources[0].name} changed while it was read; start again")
        for source, stamp in zip(self.files, self.stamps, strict=True):
            if source.stamp() != stamp:
                raise DataError(f"{source.name} changed while it was read; start again")
        return self.facts


def read(part: Part, rules: Rules) -> Iterator[Piece]:
    """The symbols of a part, once more."""
    return pieces(part.sources, rules, Counts(), lambda index, block: None)


def build(options: Options, parts: list[Part], vocabulary: Vocabulary | None) -> Text:
    """Read the parts, check their checksums, decide vocabulary and cuts. Raises DataError."""
    rules = options.rules
    sources = [source for part in parts for source in part.sources]
    stamps = [source.stamp() for source in sources]
    if options.items:
        parts, counts, digests, sizes = _drawn(parts, rules, options.split_seed)
        rules = Rules(options.encoding)
        scans = [scan(part.sources, rules) for part in parts]
    else:
        scans = [scan(part.sources, rules) for part in parts]
        digests = [digest for found in scans for digest in found.digests]
        sizes = [size for found in scans for size in found.sizes]
        counts = [found.counts for found in scans]
    for source, digest in zip(sources, digests, strict=True):
        named.check(source, digest)
    remember(sources, stamps, digests, time.time_ns())
    spans, unused = _spans(parts, scans)
    text = Text(parts, rules, scans, Vocabulary(()), digests, sizes, sources, stamps)
    text.vocabulary, notes, mapped = _decide(options, text, spans, vocabulary)
    text.facts = {
        "vocabulary": text.vocabulary.to_plain(),
        "length": sum(found.characters for found in scans),
        "spans": spans,
        "sizes": sizes,
        "digests": digests,
        "notes": notes,
        "cleaned": {name: sum(getattr(count, name) for count in counts) for name in Counts.__dataclass_fields__},
        "mapped": mapped,
        "unused": unused,
    }
    return text


def _drawn(parts: list[Part], rules: Rules, seed: int) -> tuple[list[Part], list[Counts], list[str], list[int]]:
    """A list's splits, each as a text in memory; checksums and sizes are those of the files."""
    drawn, all_counts, all_digests, all_sizes = [], [], [], []
    for part in parts:
        counts = Counts()
        clean, digests, sizes = lines.read_items(part.sources, rules, counts)
        texts = lines.draw(clean, list(part.shares), seed, part.sources[0].name)
        drawn += [Part((name,), [Source(name, content=text)]) for name, text in zip(part.names, texts, strict=True)]
        all_counts.append(counts)
        all_digests += digests
        all_sizes += sizes
    return drawn, all_counts, all_digests, all_sizes


def _spans(parts: list[Part], scans: list[Scan]) -> tuple[dict[str, list[int]], int]:
    """Where each split lies in the encoded file, cut before any window is; and how many characters no split has."""
    spans, start, unused = {}, 0, 0
    for part, found in zip(parts, scans, strict=True):
        edges = lines.cuts(found.characters, list(part.shares))
        for name, (low, high) in zip(part.names, pairwise(edges), strict=True):
            spans[name] = [start + low, start + high]
            if high - low < 2:
                raise DataError(
                    f"{part.sources[0].name} is too short: of its {found.characters:,} characters the split {name} "
                    f"gets {high - low}, and it takes one to read and one to predict; use a longer text"
                )
        unused += found.characters - edges[-1]
        start += found.characters
    return spans, unused


def _decide(
    options: Options, text: Text, spans: dict[str, list[int]], given: Vocabulary | None
) -> tuple[Vocabulary, list[str], dict[str, int]]:
    """The vocabulary: of the training split (or the one given), and what becomes of characters that it lacks."""
    kind = options.encoding
    cut = spans["train"][1]  # train is the first split of the first part, so places and edges count alike
    published = named.CORPORA[options.name].alphabet if options.name in named.CORPORA else None
    if given is not None:
        if given.kind != kind:
            raise DataError(
                f"the vocabulary is of {given.kind}, the text is read as {kind}; set data.encoding={given.kind}"
            )
        vocabulary = given
    elif published and kind == "bytes" and not options.lowercase:
        vocabulary = Vocabulary(tuple(sorted(published)), kind)
    else:
        vocabulary = Vocabulary(tuple(sorted(code for code, at in text.scans[0].first.items() if at < cut)), kind)
    known = set(vocabulary.codes)
    lacking = sorted({code for found in text.scans for code in found.first} - known)
    # Characters that lie in no split at all are no one's concern
    missing = count_missing(text, spans, known) if lacking else {}
    if not missing:
        return (vocabulary.with_unknown() if options.unknown == "map" else vocabulary), [], {}
    rule = options.unknown or ("map" if given is None or given.unknown_id is not None else "error")
    name, (count, first, codes) = next(iter(missing.items()))
    if rule == "error":
        extend = ", data.unknown=extend one for each" if given is not None else ""
        remedy = f"data.unknown=map makes one symbol for all of them{extend}"
        raise vocabulary.unknown_error(codes, count, first, f"{options.name}: {name}", remedy)
    if rule == "extend":
        added = sorted({code for _, _, codes in missing.values() for code in codes})
        note = f"vocabulary: {counted(len(added), kind)} added to the {len(vocabulary)} it had"
        return vocabulary.extend_codes(added), [note], {}
    notes = [
        f"{name}: {counted(count, kind)} ({len(codes)} distinct) not in the vocabulary; "
        "one unknown symbol stands for them, and the uniform guess counts it"
        for name, (count, _, codes) in missing.items()
    ]
    return vocabulary.with_unknown(), notes, {name: count for name, (count, _, _) in missing.items()}


def count_missing(text: Text, spans: dict[str, list[int]], known: set[int]) -> dict[str, tuple[int, int, list[int]]]:
    """split -> (how many of its symbols are not `known`, place of the first in it, their codes), for those with any."""
    has = np.zeros(0x110000, bool)
    has[[code for code in known if code != NO_CODE]] = True
    places, codes, at = [np.empty(0, np.int64)], [np.empty(0, np.uint32)], 0
    for piece in _chained(text):
        symbols = np.frombuffer(piece, np.uint8) if isinstance(piece, bytes) else piece
        where = np.flatnonzero(~has[symbols])
        places.append(where + at)
        codes.append(symbols[where].astype(np.uint32))
        at += len(piece)
    place, code = np.concatenate(places), np.concatenate(codes)
    missing = {}
    for name, (low, high) in spans.items():
        inside = slice(*np.searchsorted(place, (low, high)).tolist())
        if inside.start < inside.stop:
            first = int(place[inside.start]) - low
            missing[name] = (inside.stop - inside.start, first, np.unique(code[inside]).tolist())
    return missing


def _chained(text: Text) -> Iterable[Piece]:
    for part in text.parts:
        yield from read(part, text.rules)


# ---- A corpus: a text with a name, its vocabulary, and the pieces it is cut into before any window is.

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
