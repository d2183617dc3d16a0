"""Which character was taken for which, and what each costs."""

from __future__ import annotations

from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from src.diagnostics.diagnostic import View, Watcher
from src.models.loss import Outcome
from src.training.module import LanguageModule


class ConfusionCounts(NamedTuple):
    """Counts over a text. Ids are those of the vocabulary.

    pairs: (found,) true * vocab + predicted, each pair that came, in order: of V * V a text has few.
    times: (found,) how often it came.
    nats: (vocab,) what the characters of each kind cost together.
    stood: (vocab,) how often each was the true one.
    """

    pairs: Tensor
    times: Tensor
    nats: Tensor
    stood: Tensor

    @classmethod
    def none(cls, vocab_size: int) -> ConfusionCounts:
        """Nothing counted yet."""
        empty, whole = torch.zeros(0, dtype=torch.int64), torch.zeros(vocab_size, dtype=torch.int64)
        return cls(empty, empty, whole.double(), whole)

    def plus(self, targets: Tensor, predicted: Tensor, losses: Tensor) -> ConfusionCounts:
        """Return these and a window's: targets, first guesses and nats, all (time, batch); targets below 0 are none."""
        real = targets >= 0
        true, guess, nats = (part[real].cpu() for part in (targets, predicted, losses))
        size = len(self.nats)
        new, times = torch.unique(true * size + guess, return_counts=True)
        pairs, place = torch.unique(torch.cat([self.pairs, new]), return_inverse=True)
        return ConfusionCounts(
            pairs,
            torch.zeros_like(pairs).index_add_(0, place, torch.cat([self.times, times])),
            self.nats + torch.bincount(true, nats.double(), minlength=size),
            self.stood + torch.bincount(true, minlength=size),
        )

    def hits(self) -> int:
        """Return how often the first guess was right."""
        return int(self.times[self._right()].sum())

    def worst(self, most: int) -> list[tuple[int, int, int]]:
        """Return the commonest mistakes as (true, predicted, how often), the commonest first."""
        pairs, times = self.pairs[~self._right()], self.times[~self._right()]
        commonest = times.argsort(descending=True, stable=True)[:most]
        size, found = len(self.nats), zip(pairs[commonest].tolist(), times[commonest].tolist(), strict=True)
        return [(p // size, p % size, n) for p, n in found]

    def per_character(self) -> Tensor:
        """Return the mean nats of each character, (vocab,); not a number where it never stood."""
        return self.nats / self.stood

    def _right(self) -> Tensor:
        size = len(self.nats)
        return self.pairs // size == self.pairs % size


# ---- Which characters are taken for which, and what each character costs.

MOST_READ = 131_072  # characters counted of a longer text
MOST_READ_ALONE = 16_384  # where no validation goes by at the step that is drawn


class Confusions(Watcher):
    """Draw `text/confusions`, counted over the validation as it goes by."""

    name = "confusions"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []  # targets, first guesses, nats: counted when it is drawn
        self.characters = 0
        self.seen_at = -1  # the step of that validation

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See anew."""
        self.seen, self.characters, self.seen_at = [], 0, trainer.global_step

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Keep a window that was validated on."""
        assert isinstance(pl_module, LanguageModule)
        if self.active and pl_module.val_outcome is not None and self.characters < MOST_READ:
            self._see(pl_module.val_outcome)

    def draw(self, view: View) -> None:
        """Count what was seen, and draw."""
        from src.diagnostics.drawing import confusions

        validated = self.seen_at == view.step
        if not (validated and self.seen):  # a run taken up just behind a validation reads what went by there
            self._read(view, MOST_READ if validated else MOST_READ_ALONE)
        counts = ConfusionCounts.none(len(self.gallery.symbols))
        seen = [torch.cat([part.flatten() for part in parts]) for parts in zip(*self.seen, strict=True)]
        self.seen = []
        figure = confusions(view.step, counts.plus(*seen), self.gallery.symbols)
        self.gallery.figure(view.trainer, "text/confusions", figure, view.step)

    def memory(self) -> dict[str, Any]:
        """At which step a validation has gone by; what it showed can be read again."""
        return {"seen_at": self.seen_at}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take it back."""
        self.seen_at = memory.get("seen_at", -1)

    def _read(self, view: View, most: int) -> None:
        """Read the first windows, about `most` characters."""
        self.seen, self.characters, state = [], 0, None
        for window in view.validated():
            logits, loss, state = view.read(window, None if window.starts else state)
            self._see(Outcome(window.targets, logits, loss))
            if self.characters >= most:
                break

    def _see(self, outcome: Outcome) -> None:
        targets = outcome.targets
        self.seen.append((targets, outcome.logits.argmax(-1), outcome.loss.losses))
        self.characters += targets.numel()
