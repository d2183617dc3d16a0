"""What a cross-entropy in nats a character means, and how one is averaged: sum first, divide once."""

from __future__ import annotations

import math
from dataclasses import dataclass


def bits_per_character(cross_entropy: float) -> float:
    """Nats to bits: H / ln 2."""
    return cross_entropy / math.log(2)


def perplexity(cross_entropy: float) -> float:
    """exp(H): among how many equally likely characters the model might as well be choosing; inf where it overflows."""
    return math.exp(cross_entropy) if cross_entropy < 700 else math.inf


def four_metrics(prefix: str, cross_entropy: float, accuracy: float) -> dict[str, float]:
    """Return the four metrics that are always reported together, under `<prefix>/...`."""
    return {
        f"{prefix}/cross_entropy": cross_entropy,
        f"{prefix}/bits_per_character": bits_per_character(cross_entropy),
        f"{prefix}/perplexity": perplexity(cross_entropy),
        f"{prefix}/accuracy": accuracy,
    }


@dataclass
class Tally:
    """A mean over characters, not over windows: 100 characters at 1 nat and 3 at 3 nats are 1.06 nats a character."""

    nats: float = 0.0
    correct: float = 0.0
    characters: int = 0
    sequences: int = 0  # of a task
    sequences_right: int = 0

    def add(self, nats: float, correct: float, characters: int) -> None:
        self.nats += nats
        self.correct += correct
        self.characters += characters

    def add_sequences(self, right: int, count: int) -> None:
        """Add how many sequences of a window are right as a whole, of how many."""
        self.sequences_right += right
        self.sequences += count

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the four metrics of everything added, or none where nothing was; of a task also `sequences_right`."""
        if not self.characters:
            return {}
        found = four_metrics(prefix, self.nats / self.characters, self.correct / self.characters)
        if self.sequences:
            found[f"{prefix}/sequences_right"] = self.sequences_right / self.sequences
        return found
