"""What a model is worth on a text: nats and hits of every transition, the state carried, each scored once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from src.data.batching import Windows, evaluation_windows
from src.data.corpus import Corpus
from src.data.splits import LineSplit, Split, TextSplit
from src.data.text_reader import Source, pieces
from src.data.vocabulary import codes_of
from src.errors import DataError, UserError
from src.inference.surprisal import Score
from src.metrics import Tally
from src.models.language_model import LanguageModel, State
from src.models.loss import WindowLoss, window_loss

if TYPE_CHECKING:
    from src.inference.trained_model import TrainedModel


@dataclass
class Evaluation:
    """Sums over a split, and the mean loss at each place of a window (nats; in the order of time)."""

    tally: Tally = field(default_factory=Tally)
    loss_by_position: list[float] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """The entries of evaluation_<split>.json that the model decides."""
        named = {name.partition("/")[2]: value for name, value in self.tally.metrics("split").items()}
        return {**named, "characters": self.tally.characters, "loss_by_position": self.loss_by_position}


def split_windows(split: Split, seq_len: int, side_by_side: int = 1) -> Windows:
    """The windows of an exact evaluation: a text in one stream; items, which start anew anyway, some at a time."""
    return evaluation_windows(split, seq_len, side_by_side if isinstance(split, LineSplit) else 1)


def losses(model: LanguageModel, windows: Windows) -> Iterator[tuple[WindowLoss, Tensor]]:
    """Yield each window's loss and whether each first guess was right (time, batch), the state carried between them."""
    state: State = None
    for window in windows:
        with torch.inference_mode():
            logits, state = model(window.inputs, None if window.starts else state)
            loss, hits = window_loss(logits, window.targets, "mean"), logits.argmax(-1) == window.targets
        yield loss, hits  # outside: a mode set in a generator would stay set for whoever asks it


def evaluate(model: LanguageModel, windows: Windows) -> Evaluation:
    """Score every transition that the windows hold; sum first, divide once."""
    found = Evaluation()
    nats = np.zeros(0)
    counts = np.zeros(0, np.int64)
    for loss, hits in losses(model, windows):
        by_position = loss.losses.double().sum(1).numpy()
        if (more := len(by_position) - len(nats)) > 0:
            nats, counts = np.pad(nats, (0, more)), np.pad(counts, (0, more))
        nats[: len(by_position)] += by_position
        counts[: len(by_position)] += loss.real.sum(1).numpy()
        found.tally.add(float(by_position.sum()), float(hits.sum()), int(loss.characters))
    found.loss_by_position = (nats / np.maximum(counts, 1)).tolist()
    return found


def evaluate_split(model: LanguageModel, corpus: Corpus, split: str, seq_len: int, side_by_side: int = 1) -> Evaluation:
    """Evaluate a split of a corpus; DataError names the splits it has where it lacks this one."""
    return evaluate(model, split_windows(corpus.splits[split], seq_len, side_by_side))


# ---- The bits of every character of a text: what `evaluate` sums, kept apart.


def score_ids(trained: TrainedModel, ids: np.ndarray, name: str) -> Score:
    """Score ids (length,): of a running text all but the first, of items each, its end too, from a zero state.

    Raises:
        UserError: there is nothing to score.
    """
    decode = trained.vocabulary.decode_bytes
    boundary = trained.boundary_id
    if boundary is None:
        if len(ids) < 2:
            raise UserError(f"{name} has one character, which is given; a second one is needed to have one to score")
        texts, given = [ids], decode(ids[:1])
    else:
        texts, given = items(ids, boundary), b""
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
    """The ids of a file (length,), read by the rules that the model's own text was read by.

    Raises:
        DataError: it cannot be read so, is empty, or has characters that the model does not know.
    """
    config = trained.config.data
    with told_for_a_model():
        symbols = list(pieces([source], config))
    if config.encoding == "bytes":
        return trained.ids(b"".join(map(bytes, symbols)), source.name)
    codes = [codes_of(piece, "characters") if isinstance(piece, bytes) else piece for piece in symbols]
    text = np.concatenate([np.empty(0, np.uint32), *codes]).astype("<u4").tobytes().decode("utf-32-le")
    return trained.ids(text, source.name)


@contextlib.contextmanager
def told_for_a_model() -> Iterator[None]:
    """How a text is read was decided when the model was trained: a file that is no such text has another way out."""
    try:
        yield
    except DataError as error:
        told, advice, _ = str(error).partition("; data.errors=")
        if not advice:
            raise
        raise DataError(f"{told}; the model reads UTF-8, as it was trained: mend the file or name another") from error


def items(ids: np.ndarray, boundary: int) -> list[np.ndarray]:
    """The items of a list, each between two boundaries; empty lines are left out, as in training."""
    edge = np.array([boundary], ids.dtype)
    ends = np.flatnonzero(np.append(ids, edge) == boundary)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return [
        np.concatenate((edge, ids[start:end], edge)) for start, end in zip(starts, ends, strict=True) if end > start
    ]
