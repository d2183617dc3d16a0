"""A corpus: the named ones and their files, the rules of the `data` group, and how a text becomes ids in splits.

A file of a named corpus is searched below data.root, then in the cache folder, then downloaded with pooch, which checks
its sha256. The texts themselves are not part of this repository; registry.txt has their addresses.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from src.config.schema import TASKS, DataConfig
from src.data import text_reader
from src.data.batching import BOUNDARY, LineSplit, PairSplit, Splits, TextSplit
from src.data.tasks import errors_in_task, open_task
from src.data.text_reader import CLEANED, Facts, Piece, Scan, Source, error_in_path, find, pieces, rules_of, scan
from src.data.vocabulary import Vocabulary
from src.errors import UserError, counted, nearest
from src.files import user_path, write_atomic

SETTLED_NS = 2_000_000_000  # a file changed this recently may change again within the clock's resolution
RETRIES = 2  # of a download that fails; pooch waits 1 s, then 2 s


class Named(NamedTuple):
    """A corpus: one file and its standard split, or (split None) one file for each of train, val and test."""

    files: tuple[str, ...]  # paths in registry.txt; of a zip the file of its name is read
    split: tuple[float, ...] | None
    is_list: bool = False  # items, one per line
    alphabet: bytes | None = None  # the published symbols, if the training split has fewer


# Karpathy, Johnson and Fei-Fei took the symbols of the whole book: `/` and `=` do not occur in its first 80 %.
WAR_AND_PEACE = (
    b"\n\r !\"'()*,-./0123456789:;=?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    b"\xa0\xa4\xa9\xaa\xbb\xbf\xc3\xef"
)
CORPORA: dict[str, Named] = {
    "tiny_shakespeare": Named(("tinyshakespeare/input.txt",), (0.9, 0.1)),
    "time_machine": Named(("timemachine/timemachine.txt",), (0.9, 0.1)),
    "war_and_peace": Named(("war_and_peace/input.txt",), (0.8, 0.1, 0.1), alphabet=WAR_AND_PEACE),
    "names": Named(("names/names.txt",), (0.8, 0.1, 0.1), is_list=True),
    "ptb": Named(("ptb/ptb.train.txt", "ptb/ptb.valid.txt", "ptb/ptb.test.txt"), None),
    "text8": Named(("text8/text8.zip",), (0.9, 0.05, 0.05)),  # 10^8 characters: 90M / 5M / 5M
    "enwik8": Named(("enwik8/enwik8.zip",), (0.9, 0.05, 0.05)),
}
OWN_TEXT = ("text", "lines")
NAMES = ("hello", *OWN_TEXT, "pydoc", *CORPORA, *TASKS)
SPLITS = ("train", "val", "test")
USED_BY: dict[str, tuple[str, ...]] = {  # key -> the corpora that use it
    **dict.fromkeys(("path", "paths", "val_path", "test_path", "codec", "items"), OWN_TEXT),
    "root": tuple(CORPORA),
    "split": tuple(name for name in NAMES if name not in ("hello", "ptb", *TASKS)),
    **dict.fromkeys(("sequences", "held_out", "length", "test_length"), TASKS),
    "kinds": ("copy", "brackets"),
    "recall": ("copy",),
    **dict.fromkeys(("depth", "test_depth"), ("brackets",)),
    **dict.fromkeys(("input", "target", "symbols"), ("hello",)),
    "evaluation_warmup": tuple(name for name in NAMES if name not in ("hello", "lines", "names", *TASKS)),
}
EXTEND = "data.unknown=extend adds to the vocabulary of init_from=RUN; without it use data.unknown=map or error"


class File(NamedTuple):
    """A line of registry.txt: path below data.root or the cache, checksum, address."""

    path: str
    sha256: str
    address: str

    def places(self, root: str | None) -> list[Path]:
        """Return where the file may be, in order of search; it is downloaded to the last one."""
        cached = text_reader.cache_folder() / "corpora" / self.path
        return [user_path(root) / self.path, cached] if root else [cached]

    def fetch(self, root: str | None) -> Path:
        """Return the path of the file; a missing one is downloaded into the cache, completely or not at all."""
        for place in self.places(root):
            if os.path.isfile(place):
                return place
        import pooch  # type: ignore[import-untyped]  # here, because its import takes 0.3 s

        folder, known = text_reader.cache_folder() / "corpora", {self.path: self.sha256}
        cache = pooch.create(folder, "", registry=known, urls={self.path: self.address}, retry_if_failed=RETRIES)
        return Path(cache.fetch(self.path, progressbar=sys.stderr.isatty()))

    def source(self, root: str | None) -> Source:
        """Return the file, downloaded if necessary, its checksum left to its reader; a zip is checked and unpacked."""
        if not self.path.endswith(".zip"):
            path = self.fetch(root)
            return Source(str(path), path, sha256=self.sha256, address=self.address)
        cached = self.places(root)[-1]
        unpacked = cached.parent / self.sha256[:16] / cached.stem
        if not unpacked.is_file():
            archive = self.fetch(root)
            check([Source(str(archive), sha256=self.sha256)], [hashlib.sha256(archive.read_bytes()).hexdigest()])
            unpacked.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(archive) as opened:
                write_atomic(unpacked, opened.read(unpacked.name))
        return Source(str(unpacked), unpacked, address=self.address)


LINES = Path(__file__).with_name("registry.txt").read_text("utf-8").splitlines()
REGISTRY = {(file := File(*line.split())).path: file for line in LINES if not line.startswith("#")}


def is_list(config: DataConfig) -> bool:
    """Whether the corpus is a list of items, one per line; the sequences of a task are items too."""
    named = CORPORA.get(config.name)
    return bool(config.items or config.name == "lines" or config.is_task or (named and named.is_list))


def sources(name: str, root: str | None) -> list[Source]:
    """Return the files of a named corpus. Raises UserError: what to download by hand, and where to put it."""
    files = [REGISTRY[path] for path in CORPORA[name].files]
    try:
        return [file.source(root) for file in files]
    except UserError:
        raise
    except (OSError, ValueError) as error:  # of requests or the disk; of pooch: another checksum
        way = "download {0.address} (sha256 {0.sha256}) by hand and put it at {1}"
        missing = [file for file in files if not any(map(os.path.isfile, file.places(root)))]
        by_hand = [way.format(file, file.places(root)[0]) for file in missing]
        reason = "no connection" if type(error).__name__ in ("ConnectionError", "ConnectTimeout") else error
        raise UserError("\n".join([f"data={name} cannot be downloaded ({reason})", *by_hand])) from error


def check(sources: list[Source], digests: list[str]) -> None:
    """Raise UserError if a file does not have the checksum that it is known to have."""
    for source, digest in zip(sources, digests, strict=True):
        if source.sha256 and digest != source.sha256:
            what = f"{source.name} has sha256 {digest}, expected {source.sha256}: another file, or a damaged one"
            raise UserError(f"{what}; delete it, and it is downloaded again")


def errors_in_data(config: DataConfig) -> Iterator[str]:
    """Yield which keys of the `data` group do not go together, one text an error; no file is opened."""
    name, own = config.name, config.path or config.paths
    if name not in NAMES:
        if not own:
            way = f"expected one of {', '.join(NAMES)}{nearest(name, NAMES)}; a text of your own needs data.path=FILE"
            yield f"data={name}: there is no such corpus; {way}"
            return
        if not name or "/" in name or name.startswith("."):
            yield f"data.name={name}: expected a name for a text of your own, as my_book"
        name = "text"
    for key, names in USED_BY.items():
        if getattr(config, key) and name not in names:
            yield f"data.{key} is not used by data={name}, only by {', '.join(names)}; leave it out"
    if name in OWN_TEXT and not config.path and not config.paths:
        yield f"data={name} needs a text: set data.path to a file, a folder or a glob, or data.paths to a list of them"
    for key, path in [*((key, getattr(config, key)) for key in ("path", "val_path", "test_path")),
                      *(("paths", path) for path in config.paths or [])]:  # fmt: skip
        if path and (error := error_in_path(path, f"data.{key}")):
            yield error
    if config.codec is not None:
        if config.encoding == "bytes":
            yield f"data.codec={config.codec} makes characters, which data.encoding=bytes does not read; leave one out"
        elif not is_codec(config.codec):
            usual = ("cp1252", "latin-1", "utf-16", "gb18030", "big5", "shift_jis", "koi8-r")
            like = nearest(config.codec, usual) or f"; expected one such as {', '.join(usual)}"
            yield f"data.codec={config.codec}: Python has no such codec of texts{like}"
    if config.path and config.paths:
        yield "data.path and data.paths both name the text; leave one out, or set it to null"
    if config.encoding != "bytes" and any("\ud800" <= character <= "\udfff" for character in config.separator):
        yield f"data.separator={config.separator!r} is not text; data.encoding=bytes accepts any byte"
    if config.split is not None and name in USED_BY["split"]:
        shares = [Fraction(str(share)) if isfinite(share) else Fraction(0) for share in config.split]
        if not 1 <= len(shares) <= 3 or min(shares) <= 0 or sum(shares) > 1:
            expected = "expected one to three shares (train, val, test) above 0 with a sum of at most 1"
            yield f"data.split={config.split}: {expected}, such as [0.9,0.1] or [0.8,0.1,0.1]"
        if config.val_path:
            yield f"data.split={config.split}: with data.val_path all of data.path is for training; leave one out"
        elif config.test_path and len(shares) == 3:
            yield f"data.split={config.split}: with data.test_path the third share is not used; give two shares"
    if config.is_task:
        yield from errors_in_task(config)
    if name == "hello":
        inputs, target, symbols = pair_of(config)
        if len(inputs) != len(target) or not inputs:
            lengths = f"{len(inputs)} characters and data.target={target} has {len(target)}"
            yield f"data.input={inputs} has {lengths}; each step needs one target"
        if len(set(symbols)) != len(symbols):
            yield f"data.symbols={symbols}: each symbol may occur only once"
        if missing := sorted(set(inputs + target) - set(symbols)):
            yield f"data.symbols={symbols} lacks {', '.join(missing)} of data.input and data.target; add it"


def is_codec(name: str) -> bool:
    """Whether Python can read texts in a codec of this name."""
    try:
        "a".encode(name)  # a str: hex and the like encode only bytes
    except (LookupError, ValueError):
        return False
    return True


def pair_of(config: DataConfig) -> tuple[str, str, str]:
    """Return input, target and symbols of data=hello; the defaults are the tutorial's."""
    given = ((config.input, "hello"), (config.target, "ohlol"), (config.symbols, "ehlo"))
    inputs, target, symbols = (default if value is None else value for value, default in given)
    return inputs, target, symbols


@dataclass(frozen=True, eq=False)
class Corpus:
    """What a run trains on."""

    name: str
    vocabulary: Vocabulary
    splits: Splits
    provenance: dict[str, Any]  # for run.json: files, checksums, rules, counts
    key: str  # of content and options: two corpora with the same key have the same ids
    notes: tuple[str, ...] = ()  # what a user should know at the start, one line each


class Part(NamedTuple):
    """Files that are read as one text, cut into splits by `shares`."""

    names: tuple[str, ...]
    sources: list[Source]
    shares: tuple[float, ...] = (1.0,)


def open_corpus(config: DataConfig, vocabulary: Vocabulary | None = None) -> Corpus:
    """Open the corpus that the `data` group describes, encoded with the `vocabulary` of an earlier run if given."""
    extend = [EXTEND] if config.unknown == "extend" and vocabulary is None else []  # it would add held-out symbols
    if errors := [*errors_in_data(config), *extend]:
        raise UserError(*errors)
    if config.name == "hello":
        return _open_pair(config, vocabulary)
    if config.is_task:
        own, splits, record = open_task(config)
        if vocabulary is not None and vocabulary != own:
            what = f"data={config.name} has the symbols {''.join(own.symbols)!r}, and the earlier run has others"
            raise UserError(f"{what}; use data.kinds of that run, or leave init_from out")
        return Corpus(config.name, own, splits, record, text_reader.hash_of([config.name, record]))
    if vocabulary and (kind := vocabulary.kind) != config.encoding:
        raise UserError(f"data.encoding={config.encoding}: the vocabulary is of {kind}; set data.encoding={kind}")
    parts = _parts(config)
    files = [source for part in parts for source in part.sources]
    if digests := text_reader.read_cached(text_reader.digests_file([source.stamp() for source in files])):
        check(files, digests)
        key = _key(config, parts, digests, vocabulary)
        if found := text_reader.find_ids(key):
            return _corpus(config, key, *found, parts)
    return _encode(config, parts, files, vocabulary)


def _parts(config: DataConfig) -> list[Part]:
    """Return the files of a corpus and the shares that they are cut into. Raises UserError if one is missing."""
    own, unpack = tuple(map(float, config.split)) if config.split is not None else None, config.encoding != "bytes"
    if config.name in CORPORA:
        files, standard = sources(config.name, config.root), CORPORA[config.name].split
        if standard is None:
            return [Part((name,), [source]) for name, source in zip(SPLITS, files, strict=True)]
        return [Part(SPLITS[: len(own or standard)], files, own or standard)]
    if config.name == "pydoc":
        from pydoc_data.topics import topics  # the help texts that are part of CPython

        content = "\n".join(topics[topic] for topic in sorted(topics)).encode()
        files = [Source("pydoc_data.topics", content=content)]
    else:
        key, given = ("paths", config.paths) if config.paths else ("path", [str(config.path)])
        files = [source for path in given for source in find(path, key, unpack)]
    held_out = [(name, path) for name, path in (("val", config.val_path), ("test", config.test_path)) if path]
    usual = (1.0,) if config.val_path else (0.8, 0.1, 0.1) if is_list(config) and not held_out else (0.9, 0.1)
    first = Part(SPLITS[: len(own or usual)], files, own or usual)
    return [first, *(Part((name,), find(path, f"{name}_path", unpack)) for name, path in held_out)]


def _key(config: DataConfig, parts: list[Part], digests: list[str], vocabulary: Vocabulary | None) -> str:
    """Return the hash of everything that the ids depend on: content, rules, splits, vocabulary; not the paths."""
    content = {
        "format": text_reader.FORMAT, "digests": digests,
        "parts": [[part.names, len(part.sources), part.shares] for part in parts], "rules": rules_of(config),
        "items": config.split_seed if is_list(config) else None, "unknown": config.unknown,
        "published": config.name if config.name in CORPORA and CORPORA[config.name].alphabet else None,
        "vocabulary": vocabulary.to_plain() if vocabulary else None,
    }  # fmt: skip
    return text_reader.hash_of(content)


def _encode(config: DataConfig, parts: list[Part], files: list[Source], given: Vocabulary | None) -> Corpus:
    """Read the parts, decide on splits and vocabulary, and write the ids: for a text that is not in the cache."""
    stamps = [source.stamp() for source in files]
    texts, reading = parts, config
    if is_list(config):
        texts, scans = _draw(parts, config)
        reading = DataConfig("text", encoding=config.encoding)  # items that are drawn are clean
        text_scans = [scan(text.sources, reading) for text in texts]
    else:
        scans = text_scans = [scan(part.sources, config) for part in parts]
    digests = [digest for one in scans for digest in one.digests]
    check(files, digests)
    if all(time.time_ns() - int(stamp[2]) > SETTLED_NS for stamp in stamps):
        text_reader.write_cached(text_reader.digests_file(stamps), digests)

    def symbols() -> Iterator[Piece]:
        return itertools.chain.from_iterable(pieces(text.sources, reading) for text in texts)

    spans, unused = _spans(texts, [one.length for one in text_scans])
    if (vocabulary := given) is None:  # the symbols of the training split, or the published ones
        published = CORPORA[config.name].alphabet if config.name in CORPORA else None
        as_published = published if config.encoding == "bytes" and not config.lowercase else None
        found = (code for code, at in text_scans[0].first.items() if at < spans["train"][1])
        vocabulary = Vocabulary(tuple(sorted(as_published or found)), config.encoding)
    lacks = {code for one in text_scans for code in one.first} - set(vocabulary.codes)
    missing = _missing(symbols(), spans, vocabulary) if lacks else {}  # those in no split do not matter
    vocabulary, notes = _with_missing(config, vocabulary, missing, given)
    if pages := sum(one.counts["web_pages"] for one in scans):
        what = "a web page (HTML), whose tags are learned too; save it as text to have the text alone"
        notes += [f"{counted(pages, 'files')} of the text: {what}"]
    if any(digest in scans[0].digests for one in scans[1:] for digest in one.digests):
        notes += ["a training file is also held out, so its loss is not a test: see data.val_path, data.test_path"]
    facts = {
        "vocabulary": vocabulary.to_plain(), "length": sum(one.length for one in text_scans), "spans": spans,
        "sizes": [size for one in scans for size in one.sizes], "digests": digests, "notes": notes,
        "cleaned": {name: sum(one.counts[name] for one in scans) for name in CLEANED},
        "mapped": {} if config.unknown == "extend" else {name: count for name, (count, _, _) in missing.items()},
        "unused": unused,
    }  # fmt: skip

    def write(stream: BinaryIO) -> None:
        text_reader.write_ids(stream, symbols(), vocabulary)
        for source, stamp in zip(files, stamps, strict=True):
            if source.stamp() != stamp:
                raise UserError(f"{source.name} was changed while it was read; start again")

    key = _key(config, parts, digests, given)
    return _corpus(config, key, *text_reader.find_or_add_ids(key, write, facts), parts)


def _draw(parts: list[Part], config: DataConfig) -> tuple[list[Part], list[Scan]]:
    """Scan a list and draw its lines, without empty ones, into its splits, each a text `\\n item \\n item \\n`."""
    drawn, scans = [], []
    for part in parts:
        kept: list[bytes] = []
        scans.append(scan(part.sources, config, kept.append))
        items = [item for item in b"".join(kept).split(b"\n") if item]
        order = np.random.default_rng(config.split_seed).permutation(len(items)).tolist()
        for name, (low, high) in zip(part.names, itertools.pairwise(edges_of(len(items), part.shares)), strict=True):
            if low == high:
                what = f"has {len(items):,} items, and with data.split={list(part.shares)} one split has none"
                raise UserError(f"{part.sources[0].name} {what}; use a longer list or fewer splits")
            text = b"\n".join([b"", *(items[at] for at in order[low:high]), b""])
            drawn.append(Part((name,), [Source(name, content=text)]))
    return drawn, scans


def edges_of(length: int, shares: Sequence[float]) -> list[int]:
    """Return 0 and the end of each share: the floor of the exact running sum, so that 0.9 of 10 is 9."""
    sums = itertools.accumulate((Fraction(str(share)) for share in shares), initial=Fraction(0))
    return [int(length * total) for total in sums]


def _spans(texts: list[Part], lengths: list[int]) -> tuple[dict[str, list[int]], int]:
    """Return where each split is in the ids of all texts, and how many characters are in no split."""
    spans, start, unused = {}, 0, 0
    for text, length in zip(texts, lengths, strict=True):
        edges = edges_of(length, text.shares)
        for name, (low, high) in zip(text.names, itertools.pairwise(edges), strict=True):
            spans[name] = [start + low, start + high]
            if high - low < 2:
                need = "it needs one to read and one to predict; use a longer text"
                what = f"of its {length:,} characters the split {name} gets {high - low}, and {need}"
                raise UserError(f"{text.sources[0].name} is too short: {what}")
        unused += length - edges[-1]
        start += length
    return spans, unused


def _missing(
    symbols: Iterable[Piece], spans: dict[str, list[int]], vocabulary: Vocabulary
) -> dict[str, tuple[int, int, list[int]]]:
    """Return, for each split with symbols that the vocabulary lacks: their number, the first offset, the codes."""
    lacks = vocabulary.table == (-1 if vocabulary.unknown_id is None else vocabulary.unknown_id)
    offsets, codes, length = [], [], 0
    for piece in symbols:
        array = text_reader.codes_in(piece)
        at = np.flatnonzero(lacks[array])
        offsets.append(at + length)
        codes.append(array[at].astype(np.uint32))
        length += len(piece)
    offset, code = np.concatenate(offsets), np.concatenate(codes)
    found = {}
    for name, (start, end) in spans.items():
        low, high = np.searchsorted(offset, (start, end)).tolist()
        if low < high:
            found[name] = (high - low, int(offset[low]) - start, np.unique(code[low:high]).tolist())
    return found


def _with_missing(
    config: DataConfig, vocabulary: Vocabulary, missing: dict[str, tuple[int, int, list[int]]], given: Vocabulary | None
) -> tuple[Vocabulary, list[str]]:
    """Return the vocabulary by the rule `config.unknown`, and notes. Raises UnknownCharacter by the rule `error`."""
    kind, rule = config.encoding, config.unknown
    if missing and rule is None:
        rule = "map" if given is None or given.unknown_id is not None else "error"
    if missing and rule == "error":
        name, (count, first, codes) = next(iter(missing.items()))
        extend = ", data.unknown=extend one for each" if given is not None else ""
        remedy = f"data.unknown=map makes one symbol for all of them{extend}"
        raise vocabulary.unknown_error(codes, count, first, f"{config.name}: {name}", remedy)
    if missing and rule == "extend":
        added = sorted({code for _, _, codes in missing.values() for code in codes})
        note = f"vocabulary: {counted(len(added), kind)} added to the {len(vocabulary)} it had"
        return Vocabulary((*vocabulary.codes, *added), kind), [note]
    notes = [
        f"{name}: {counted(count, kind)} ({len(codes)} distinct) not in the vocabulary; "
        "one unknown symbol represents them, and the uniform guess counts it"
        for name, (count, _, codes) in missing.items()
    ]
    return vocabulary.with_unknown() if rule == "map" else vocabulary, notes


def _corpus(config: DataConfig, key: str, ids: np.ndarray, facts: Facts, parts: list[Part]) -> Corpus:
    """Return encoded parts as a corpus, with their record for run.json."""
    vocabulary, splits = Vocabulary.from_plain(facts["vocabulary"]), Splits()
    for name in sorted(facts["spans"], key=SPLITS.index):
        own = ids[slice(*facts["spans"][name])]
        boundary = int(vocabulary.encode(BOUNDARY)[0]) if is_list(config) else None
        splits[name] = TextSplit(name, own) if boundary is None else LineSplit(name, own, boundary)
    files, digests = [source for part in parts for source in part.sources], facts["digests"]
    record: dict[str, Any] = {
        "sha256": digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "bytes": sum(facts["sizes"]),
        "files": [
            {"path": source.name, "sha256": digest, "bytes": size, "address": source.address}
            for source, digest, size in zip(files[:20], digests, facts["sizes"], strict=False)
        ],
        "file_count": len(files), "key": key,
        "characters": {name: len(split) for name, split in splits.items()},
        "transitions": {name: split.transitions for name, split in splits.items()},
        "split": [list(part.shares) for part in parts] if len(parts) > 1 else list(parts[0].shares),
        "unused": facts["unused"], "rules": rules_of(config), "cleaned": facts["cleaned"], "unknown": config.unknown,
        "mapped": facts["mapped"],
    }  # fmt: skip
    own_entries = {"ptb": {"convention": config.convention}, "pydoc": {"python": platform.python_version()}}
    record |= own_entries.get(config.name, {})
    if is_list(config):
        record["split_seed"] = config.split_seed
        record["items"] = {name: len(split.starts) for name, split in splits.items() if isinstance(split, LineSplit)}
    return Corpus(config.name, vocabulary, splits, record, key, tuple(facts["notes"]))


def _open_pair(config: DataConfig, vocabulary: Vocabulary | None) -> Corpus:
    """Return the tutorial's one sequence: an input, the target of each step, and the vocabulary in the order given."""
    word, target, symbols = pair_of(config)
    vocabulary = vocabulary or Vocabulary.of(symbols)
    if config.unknown == "extend":
        vocabulary = vocabulary.extend(word + target)
    elif config.unknown == "map":
        vocabulary = vocabulary.with_unknown()
    inputs, targets = (vocabulary.encode(text).astype(np.int64) for text in (word, target))
    record = {"input": word, "target": target, "symbols": symbols, "characters": {"train": len(word)}}
    splits = Splits(train=PairSplit("train", inputs, targets))
    return Corpus("hello", vocabulary, splits, record, text_reader.hash_of([word, target, vocabulary.to_plain()]))
