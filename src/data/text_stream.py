"""Ids as they come -> text as soon as it is certain: whole characters, and nothing behind a stop text."""

from __future__ import annotations

import codecs

from src.data.vocabulary import Vocabulary


class TextStream:
    """What a vocabulary's ids read as, piece by piece; joined, the pieces are `vocabulary.decode` of all ids.

    Of kind `bytes`, the bytes of a character are held back until it is whole, and what is no UTF-8 reads as U+FFFD.
    With a `stop` text, what may be its beginning is held back too; once it is complete, it and all behind it are left
    out, and `stopped` is true. The work a character does not grow with the text.
    """

    def __init__(self, vocabulary: Vocabulary, stop: str | None = None) -> None:
        self.vocabulary = vocabulary
        self.stop = stop
        self.stopped = False
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace") if vocabulary.kind == "bytes" else None
        self._pieces = [vocabulary.decode_bytes([id]) for id in range(len(vocabulary))]
        self._symbols = [vocabulary.decode([id]) for id in range(len(vocabulary))]
        self._held = ""

    def feed(self, id: int) -> str:
        """Return what has become certain with this id; often one character, sometimes nothing."""
        return self._certain(self._symbols[id] if self._bytes is None else self._bytes.decode(self._pieces[id]))

    def pause(self) -> str:
        """Return what was held back for `stop`: more ids may come later. Bytes of a character go on waiting for it."""
        rest, self._held = self._held, ""
        return rest

    def finish(self) -> str:
        """Return what was held back: no more ids come."""
        rest = "" if self._bytes is None else self._bytes.decode(b"", final=True)
        rest = self._certain(rest) + ("" if self.stopped else self._held)
        self._held = ""
        return rest

    def _certain(self, text: str) -> str:
        if not self.stop:
            return text
        if self.stopped:
            return ""
        text = self._held + text
        place = text.find(self.stop)
        if place >= 0:
            self.stopped, self._held = True, ""
            return text[:place]
        # The longest end of the text that the stop text begins with
        held = next(
            n for n in range(min(len(text), len(self.stop) - 1), -1, -1) if self.stop.startswith(text[len(text) - n :])
        )
        self._held = text[len(text) - held :]
        return text[: len(text) - held]
