"""str or bytes <-> ids, and nothing else.

The id of a symbol is its place in the vocabulary. Symbols are characters (code points) or, of kind `bytes`, byte
values; those of a training text stand in order of their codes, so that the same text always gives the same ids.
An optional symbol stands for every character that is not in the vocabulary; without it such a character is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from src.errors import UnknownCharacter, counted, shown

Kind = Literal["characters", "bytes"]
UNKNOWN = "<unknown>"  # longer than one character, so no text can contain it
REMEDY = "leave them out, or train with data.unknown=map (one symbol for all of them)"
NO_CODE = 0xFFFFFFFF  # the code of the unknown symbol: no code point, no byte


def codes_of(text: str | bytes, kind: Kind) -> np.ndarray:
    """The code points of a str (uint32) or the byte values of bytes (uint8); a str of kind `bytes` is its UTF-8."""
    if kind == "bytes":
        if isinstance(text, str):
            try:
                text = text.encode("utf-8", "surrogateescape")  # how Python holds an odd byte of a command line
            except UnicodeEncodeError as error:
                what, character = f"a lone surrogate at offset {error.start:,} has no bytes", error.object[error.start]
                raise UnknownCharacter(
                    what, "leave it out", count=1, distinct=(character,), first=error.start
                ) from None
        return np.frombuffer(text, np.uint8)
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    # surrogatepass: a lone surrogate (an odd byte of a command line) must reach the lookup and be called unknown there
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def smallest_uint(size: int) -> type[np.unsignedinteger]:
    """The smallest unsigned type that counts to `size` - 1."""
    return np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.uint32


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of codes; ids are places in it. `len(v)` counts the unknown symbol too, where there is one."""

    codes: tuple[int, ...]
    kind: Kind = "characters"

    def __post_init__(self) -> None:
        if len(set(self.codes)) != len(self.codes):
            raise ValueError(f"a vocabulary of {len(self.codes)} symbols has only {len(set(self.codes))} distinct ones")

    @classmethod
    def of(cls, symbols: Iterable[str]) -> Vocabulary:
        """Characters in the order given: `Vocabulary.of("ehlo")`."""
        return cls(tuple(ord(symbol) for symbol in symbols))

    @classmethod
    def from_text(cls, text: str | bytes, kind: Kind | None = None) -> Vocabulary:
        """The distinct characters of a str, or byte values of bytes, in the order of their codes."""
        kind = kind or ("bytes" if isinstance(text, bytes) else "characters")
        return cls(tuple(np.unique(codes_of(text, kind)).tolist()), kind)

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """One label an id: the character; a byte below 128 as its ASCII character, above as \\xNN; `<unknown>`."""
        wide = self.kind == "bytes"
        return tuple(
            UNKNOWN if code == NO_CODE else f"\\x{code:02x}" if wide and code > 127 else chr(code)
            for code in self.codes
        )

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for every character not in the vocabulary, or None where such a character is an error."""
        return self.codes.index(NO_CODE) if NO_CODE in self.codes else None

    @cached_property
    def table(self) -> np.ndarray:
        """code -> id, one place longer than the largest code; -1 (or the unknown id) where there is no symbol."""
        known = [code for code in self.codes if code != NO_CODE]
        size = 256 if self.kind == "bytes" else max(known, default=0) + 2
        unknown = self.unknown_id
        table = np.full(size, -1 if unknown is None else unknown, np.int32)
        for index, code in enumerate(self.codes):
            if code != NO_CODE:
                table[code] = index
        return table

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest unsigned type that holds every id."""
        return smallest_uint(len(self))

    def encode(self, text: str | bytes) -> np.ndarray:
        """Ids (length,) in the smallest unsigned type. Raises UnknownCharacter unless there is an unknown symbol."""
        codes = codes_of(text, self.kind)
        ids = self.table[np.minimum(codes, len(self.table) - 1)]  # the last place holds no symbol: all larger codes
        if self.unknown_id is None and len(ids) and int(ids.min()) < 0:
            missing = np.flatnonzero(ids < 0)
            raise self.unknown_error(np.unique(codes[missing]).tolist(), len(missing), int(missing[0]))
        return ids.astype(self.dtype)

    def decode_bytes(self, ids: Any) -> bytes:
        """The text of ids as bytes (UTF-8 for characters); the unknown symbol reads as U+FFFD, or `?` among bytes."""
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueError(f"ids from {ids.min()} to {ids.max()}; the vocabulary has those from 0 to {len(self) - 1}")
        codes = np.asarray(self.codes, np.uint32)
        if self.kind == "bytes":
            return np.where(codes == NO_CODE, ord("?"), codes)[ids].astype(np.uint8).tobytes()
        points = np.where(codes == NO_CODE, 0xFFFD, codes)[ids].astype("<u4").tobytes()
        return points.decode("utf-32-le", "surrogatepass").encode("utf-8", "surrogatepass")

    def decode(self, ids: Any) -> str:
        """The text of ids; of kind `bytes` read as UTF-8, what is not UTF-8 as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace" if self.kind == "bytes" else "surrogatepass")

    def with_unknown(self) -> Vocabulary:
        """The same with one more symbol, last, for every character that is not in it."""
        return self if self.unknown_id is not None else Vocabulary((*self.codes, NO_CODE), self.kind)

    def extend(self, text: str | bytes) -> Vocabulary:
        """The same with what `text` adds behind it, in order of code; ids that were keep their place."""
        return self.extend_codes(np.unique(codes_of(text, self.kind)).tolist())

    def extend_codes(self, codes: Iterable[int]) -> Vocabulary:
        """As `extend`, by code points or byte values."""
        return Vocabulary((*self.codes, *sorted(set(codes) - set(self.codes))), self.kind)

    def unknown_error(
        self, codes: Iterable[int], count: int, first: int, where: str = "the text", remedy: str = REMEDY
    ) -> UnknownCharacter:
        """The error for `count` occurrences of `codes` that the vocabulary lacks, the first at offset `first`."""
        codes = list(codes)
        distinct = tuple(chr(code) if self.kind == "characters" else f"\\x{code:02x}" for code in codes)
        what = (
            f"{where} has {counted(count, self.kind)} that the vocabulary of {len(self)} lacks: "
            f"{self.names(codes)}, the first at offset {first:,}"
        )
        return UnknownCharacter(what, remedy, count=count, distinct=distinct, first=first)

    def names(self, codes: list[int]) -> str:
        """The first few of these code points or byte values, as a reader can tell them, and how many more there are."""
        names = ", ".join(
            shown(chr(code)) if self.kind == "characters" else f"byte \\x{code:02x}" for code in codes[:5]
        )
        return f"{names} and {len(codes) - 5} more" if len(codes) > 5 else names

    def to_plain(self) -> dict[str, Any]:
        """Containers, strings and numbers only, for checkpoints and run.json."""
        return {"kind": self.kind, "codes": [None if code == NO_CODE else code for code in self.codes]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that `to_plain` wrote."""
        return cls(tuple(NO_CODE if code is None else int(code) for code in plain["codes"]), plain["kind"])
