"""How surprised a model was by each character of a text: -log2 p(character | all before it), in bits."""

from __future__ import annotations

import codecs
import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from src.data.batching import LineSplit, Split, TextSplit, Windows, evaluation_windows
from src.data.text_reader import Source, pieces
from src.data.vocabulary import codes_of
from src.errors import DataError, UserError
from src.metrics import perplexity
from src.models.language_model import LanguageModel, State, WindowLoss, window_loss

if TYPE_CHECKING:
    from src.inference.trained_model import TrainedModel


@dataclass(frozen=True)
class Score:
    """The bits of every scored symbol of a text, in order.

    name: of the file, or `text`.
    given: what is read and not scored: the first symbol; nothing for a list of items.
    symbols: the scored symbols, as many as `bits`; single bytes if the model reads bytes.
    bits: -log2 p of each.
    hits: how many were the model's first guess.
    """

    name: str
    given: bytes
    symbols: list[bytes]
    bits: list[float]
    hits: int

    @property
    def characters(self) -> int:
        """How many were scored: one less than the text has; of a list, each item's and one for its end."""
        return len(self.bits)

    @property
    def total(self) -> float:
        """Bits of the whole text."""
        return math.fsum(self.bits)

    @property
    def bits_per_character(self) -> float:
        """Mean bits."""
        return self.total / self.characters

    @property
    def cross_entropy(self) -> float:
        """Mean nats."""
        return self.bits_per_character * math.log(2)

    @property
    def perplexity(self) -> float:
        """2 to the mean bits."""
        return perplexity(self.cross_entropy)

    @property
    def accuracy(self) -> float:
        """Share of the symbols that were the first guess."""
        return self.hits / self.characters

    def readable(self) -> Iterator[tuple[str, float | None]]:
        """Yield (character, bits): the bytes of a character together; None if the character was given."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if given := decoder.decode(self.given):
            yield given, None
        bits = 0.0
        for symbol, cost in zip(self.symbols, self.bits, strict=True):
            bits += cost
            if text := decoder.decode(symbol):
                yield text, bits
                bits = 0.0
        if rest := decoder.decode(b"", final=True):
            yield rest, bits

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for JSON, with the keys of evaluation_<split>.json; `text` has pairs (character, bits)."""
        names = ("name", "characters", "total", "cross_entropy", "bits_per_character", "perplexity", "accuracy", "bits")
        return {**{name: getattr(self, name) for name in names}, "text": [list(pair) for pair in self.readable()]}


def split_windows(split: Split, seq_len: int, side_by_side: int = 1) -> Windows:
    """Return the windows of an exact evaluation: a text in one stream; of a list some items side by side."""
    return evaluation_windows(split, seq_len, side_by_side if isinstance(split, LineSplit) else 1)


def losses(model: LanguageModel, windows: Windows) -> Iterator[tuple[WindowLoss, Tensor]]:
    """Yield each window's loss and whether each first guess was right (time, batch); the state is carried."""
    state: State = None
    for window in windows:
        with torch.inference_mode():
            logits, state = model(window.inputs, None if window.starts else state)
            loss, hits = window_loss(logits, window.targets, "mean"), logits.argmax(-1) == window.targets
        yield loss, hits  # outside of the mode, which would else be set in the caller too


def score_ids(trained: TrainedModel, ids: np.ndarray, name: str) -> Score:
    """Score ids (length,), from a zero state: all but the first; in a list each item with its end.

    Raises:
        UserError: there is nothing to score.
    """
    decode, boundary = trained.vocabulary.decode_bytes, trained.boundary_id
    if boundary is None:
        if len(ids) < 2:
            raise UserError(f"{name} has one character, which is given; at least one more is needed to be scored")
        texts, given = [ids], decode(ids[:1])
    else:
        edge = np.array([boundary], ids.dtype)
        parts = np.split(ids, np.flatnonzero(ids == boundary))  # each but the first begins with a boundary
        items = [part[part != boundary] for part in parts]
        texts, given = [np.concatenate((edge, item, edge)) for item in items if len(item)], b""
        if not texts:
            raise UserError(f"{name} has line breaks only; expected one item a line")
    nats: list[np.ndarray] = []
    correct = 0
    for text in texts:
        for loss, hits in losses(trained.model, split_windows(TextSplit(name, text), trained.config.data.seq_len)):
            nats.append(loss.losses[:, 0].double().numpy())
            correct += int(hits.sum())
    bits = np.concatenate(nats) / np.log(2)
    symbols = [decode([id]) for id in range(len(trained.vocabulary))]
    return Score(name, given, [symbols[id] for text in texts for id in text[1:]], bits.tolist(), correct)


def source_ids(trained: TrainedModel, source: Source) -> np.ndarray:
    """Return the ids of a file (length,), read as the model's own text was.

    Raises:
        DataError: it cannot be read so, is empty, or has characters that the model does not know.
    """
    with remedy_for_a_model():
        symbols = list(pieces([source], trained.config.data))
    if trained.config.data.encoding == "bytes":
        return trained.ids(b"".join(map(bytes, symbols)), source.name)
    codes = [codes_of(piece, "characters") if isinstance(piece, bytes) else piece for piece in symbols]
    text = np.concatenate([np.empty(0, np.uint32), *codes]).astype("<u4").tobytes().decode("utf-32-le")
    return trained.ids(text, source.name)


@contextlib.contextmanager
def remedy_for_a_model() -> Iterator[None]:
    """Replace the advice to set data.errors, which was decided when the model was trained."""
    try:
        yield
    except DataError as error:
        what, advice, _ = str(error).partition("; data.errors=")
        if not advice:
            raise
        raise DataError(f"{what}; the model reads UTF-8, as in training: correct the file or name another") from error


# -- a page of texts coloured by surprisal ----------------------------------------------------------------------------

LEVELS = 16
BITS_PER_LEVEL = 0.75  # so that the darkest begins at 11.25 bits, one in 2,400


def render(scores: Sequence[Score], model: str) -> str:
    """Return one HTML page: a table if there are several texts, then each text, a character's bits as its title."""
    import jinja2

    template = Path(__file__).with_name("surprisal.html").read_text(encoding="utf-8")
    shares = [level / (LEVELS - 1) for level in range(LEVELS)]  # of the darkest colour
    page = jinja2.Environment(autoescape=True).from_string(template)
    return page.render(scores=scores, model=model, shares=shares, width=BITS_PER_LEVEL, level_of=level_of)


def level_of(bits: float) -> int:
    """Return the colour of a character that cost so many bits, 0 (expected, white) to LEVELS - 1 (orange)."""
    return min(LEVELS - 1, int(bits / BITS_PER_LEVEL))
