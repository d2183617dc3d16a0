"""The bits of every character of a text: what `evaluate` sums, kept apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from src.analysis.surprisal import Score
from src.data.errors import DataError
from src.data.splits import TextSplit
from src.data.text_files import Counts, Source, pieces
from src.data.vocabulary import codes_of
from src.mistakes import Mistake
from src.training.evaluation import losses, split_windows

if TYPE_CHECKING:
    from src.training.trained import TrainedModel


def score_ids(trained: TrainedModel, ids: np.ndarray, name: str) -> Score:
    """Score ids (length,): of a running text all but the first, of items each, its end too, from a zero state.

    Raises:
        Mistake: there is nothing to score.
    """
    decode = trained.vocabulary.decode_bytes
    boundary = trained.boundary_id
    if boundary is None:
        if len(ids) < 2:
            raise Mistake(f"{name} has one character, which is given; a second one is needed to have one to score")
        texts, given = [ids], decode(ids[:1])
    else:
        texts, given = items(ids, boundary), b""
        if not texts:
            raise Mistake(f"{name} has line breaks only; expected one item a line")
    nats: list[np.ndarray] = []
    correct = 0
    for text in texts:
        for loss, hits in losses(
            trained.model, split_windows(TextSplit(name, text), trained.config["data"]["seq_len"])
        ):
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
    rules = trained.options.rules
    with told_for_a_model():
        symbols = list(pieces([source], rules, Counts(), lambda index, block: None))
    if rules.encoding == "bytes":
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
