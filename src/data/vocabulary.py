"""Text <-> ids.

The id of a symbol is its index in the vocabulary. Symbols are characters (code points) or, of kind `bytes`, byte
values. The vocabulary of a training text is sorted by code, so the same text always gives the same ids. One optional
symbol represents every character that is not in the vocabulary; without it such a character is an error.
"""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from src.errors import UnknownCharacter, counted, shown

UNKNOWN = "<unknown>"  # longer than one character, so it cannot be confused with a symbol of a text
REMEDY = "leave them out, or train with data.unknown=map (one symbol for all of them)"
SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "⇤", UNKNOWN: "�"}
NO_CODE = 0xFFFFFFFF  # the code of the unknown symbol: no code point, no byte


def label(symbol: str) -> str:
    """Return a printable form of one symbol: a space as ␣, a newline as ↵, an invisible one by its number."""
    if len(symbol) != 1 or symbol in SHOWN:
        return SHOWN.get(symbol, symbol)  # a byte as \\xNN is printable already
    if not symbol.isprintable():
        return f"U+{ord(symbol):04X}"
    return "◌" + symbol if unicodedata.category(symbol).startswith("M") else symbol


def codes_of(text: str | bytes, kind: str) -> np.ndarray:
    """Return the codes (length,): code points (uint32), or byte values (uint8), of a str those of its UTF-8."""
    if kind == "bytes":  # surrogateescape: Python's form of an invalid byte of a command line
        return np.frombuffer(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text, np.uint8)
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    # surrogatepass: a lone surrogate is then looked up and reported as an unknown character
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of codes; an id is an index into it. `len(vocabulary)` includes the unknown symbol, if any."""

    codes: tuple[int, ...]
    kind: str = "characters"

    @classmethod
    def of(cls, symbols: Iterable[str]) -> Vocabulary:
        """Return the vocabulary of characters in the given order: `Vocabulary.of("ehlo")`."""
        return cls(tuple(ord(symbol) for symbol in symbols))

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """One label per id: the character; a byte as its ASCII character or as \\xNN; `<unknown>`."""
        names = {code: f"\\x{code:02x}" for code in range(128, 256)} if self.kind == "bytes" else {}
        return tuple(UNKNOWN if code == NO_CODE else names.get(code) or chr(code) for code in self.codes)

    @property
    def unknown_id(self) -> int | None:
        return self.codes.index(NO_CODE) if NO_CODE in self.codes else None

    @cached_property
    def table(self) -> np.ndarray:
        """Lookup table code -> id for every code; those without a symbol have the unknown id, or -1."""
        unknown, codes = self.unknown_id, np.array(self.codes, np.int64)
        table = np.full(256 if self.kind == "bytes" else 0x110000, -1 if unknown is None else unknown, np.int32)
        table[codes[codes != NO_CODE]] = np.flatnonzero(codes != NO_CODE)
        return table

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest unsigned type that holds every id."""
        return np.uint8 if len(self) <= 1 << 8 else np.uint16 if len(self) <= 1 << 16 else np.uint32

    def encode(self, text: str | bytes) -> np.ndarray:
        """Return ids (length,) of type `dtype`. Raises UnknownCharacter unless there is an unknown symbol."""
        codes = codes_of(text, self.kind)
        ids = self.table[codes]
        if self.unknown_id is None and len(ids) and int(ids.min()) < 0:
            missing = np.flatnonzero(ids < 0)
            raise self.unknown_error(np.unique(codes[missing]).tolist(), len(missing), int(missing[0]))
        return ids.astype(self.dtype)

    def known_form(self, text: str) -> str | None:
        """Return NFC or NFD, the form in which the vocabulary covers a text that it does not cover as it is."""
        normalised = {form: unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
        known = (form for form, one in normalised.items() if set(codes_of(one, self.kind).tolist()) <= set(self.codes))
        return next(known, None) if self.kind == "characters" else None

    def decode_bytes(self, ids: Any) -> bytes:
        """Return the text of ids as bytes (characters: as UTF-8); the unknown symbol is U+FFFD, or `?` in bytes."""
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueError(f"ids from {ids.min()} to {ids.max()}; the vocabulary has ids from 0 to {len(self) - 1}")
        codes = np.asarray(self.codes, np.uint32)
        if self.kind == "bytes":
            return np.where(codes == NO_CODE, ord("?"), codes)[ids].astype(np.uint8).tobytes()
        points = np.where(codes == NO_CODE, 0xFFFD, codes)[ids].astype("<u4").tobytes()
        return points.decode("utf-32-le", "surrogatepass").encode("utf-8", "surrogatepass")

    def decode(self, ids: Any) -> str:
        """Return the text of ids; bytes are decoded as UTF-8, invalid ones as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace" if self.kind == "bytes" else "surrogatepass")

    def with_unknown(self) -> Vocabulary:
        """Return this vocabulary with an unknown symbol, added as the last one if there is none yet."""
        return self if self.unknown_id is not None else Vocabulary((*self.codes, NO_CODE), self.kind)

    def extend(self, text: str | bytes) -> Vocabulary:
        """Return this vocabulary with the new symbols of `text` appended, sorted by code; existing ids stay."""
        new = set(codes_of(text, self.kind).tolist()) - set(self.codes)
        return Vocabulary((*self.codes, *sorted(new)), self.kind)

    def unknown_error(
        self, codes: list[int], count: int, first: int, where: str = "the text", remedy: str = REMEDY
    ) -> UnknownCharacter:
        lacking = f"{self.occurrences(codes, count)} that the vocabulary of {len(self)} lacks"
        return UnknownCharacter(f"{where} has {lacking}: {self.names(codes)}, the first at offset {first:,}", remedy)

    def occurrences(self, codes: list[int], count: int) -> str:
        """Return `2 characters`, or `104 occurrences of 2 characters`."""
        kinds = counted(len(codes), self.kind)
        return kinds if count == len(codes) else f"{counted(count, 'occurrences')} of {kinds}"

    def names(self, codes: list[int]) -> str:
        names = ", ".join(f"byte \\x{code:02x}" if self.kind == "bytes" else shown(chr(code)) for code in codes[:5])
        return f"{names} and {len(codes) - 5} more" if len(codes) > 5 else names

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "codes": [None if code == NO_CODE else code for code in self.codes]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Vocabulary:
        return cls(tuple(NO_CODE if code is None else int(code) for code in plain["codes"]), plain["kind"])


class TextStream:
    """Decode ids one at a time: the joined pieces equal `vocabulary.decode` of all ids, up to the text `stop`.

    An incomplete UTF-8 character, and what may be the beginning of `stop`, are held back until more is known.
    """

    def __init__(self, vocabulary: Vocabulary, stop: str | None = None) -> None:
        self.vocabulary, self.stop, self.stopped = vocabulary, stop, False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces = [vocabulary.decode_bytes([id]) for id in range(len(vocabulary))]
        self._held = ""

    def feed(self, id: int) -> str:
        """Return the text that is certain after this id: usually one character, sometimes nothing."""
        return self._certain(self._decoder.decode(self._pieces[id]))

    def pause(self) -> str:
        """Return the text held back for `stop`; more ids may follow. An incomplete character stays held back."""
        rest, self._held = self._held, ""
        return rest

    def finish(self) -> str:
        """Return the rest of the text; no more ids follow."""
        return self._certain(self._decoder.decode(b"", final=True)) + self.pause()

    def _certain(self, text: str) -> str:
        if self.stopped or not self.stop:
            return "" if self.stopped else text
        text = self._held + text
        end = text.find(self.stop)
        self.stopped = end >= 0
        if not self.stopped:  # hold back the longest end of the text that `stop` begins with
            longest = min(len(text), len(self.stop) - 1)
            end = len(text) - next(n for n in range(longest, -1, -1) if self.stop.startswith(text[len(text) - n :]))
        self._held = "" if self.stopped else text[end:]
        return text[:end]
