"""What a model is worth on a text: nats and hits of every transition, the state carried, each scored once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.data.corpus import Corpus
from src.data.splits import LineSplit, Split
from src.data.windows import Windows, evaluation_windows
from src.metrics import Tally
from src.models.language_model import LanguageModel, State
from src.training.loss import WindowLoss, window_loss


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
