"""What may be asked of a model, and what is wrong with it: known before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from src.data.errors import UnknownCharacter
from src.data.vocabulary import Vocabulary
from src.mistakes import Mistake
from src.models.sampling import Choice

PRECISIONS = ("32-true", "64-true")  # trainer.precision's words for float32 and float64


@dataclass(frozen=True)
class Writing:
    """What is wanted: how many symbols, how they are chosen, from which seed, how many texts, where they end."""

    length: int = 200
    choice: Choice = field(default_factory=Choice)
    seed: int | None = 0
    num_samples: int = 1
    stop: str | None = None

    def mistakes(self, vocabulary: Vocabulary | None = None) -> list[str]:
        """What is wrong with it, one text a mistake; some can be seen only with a vocabulary."""
        found = self.choice.mistakes(None if vocabulary is None else len(vocabulary))
        for name in ("length", "num_samples"):
            if (value := getattr(self, name)) < 1:
                found.append(f"{name}={value}: expected at least 1")
        if self.seed is not None and self.seed < 0:
            found.append(f"seed={self.seed}: expected 0 or more, or null to draw one")
        if self.stop == "":
            found.append("stop is empty: expected the text before which a sample ends; leave it out for none")
        elif self.stop is not None and vocabulary is not None:
            codes = self.stop.encode() if vocabulary.kind == "bytes" else map(ord, self.stop)
            if lacking := sorted(set(codes) - set(vocabulary.codes)):
                names = ", ".join(repr(chr(code)) for code in lacking)
                found.append(f"stop={self.stop!r} can never come: the model has no {names}")
        return found


def check_prompt(samples: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Hold the prompt of callbacks.text_samples to the vocabulary.

    Raises:
        Mistake: it has characters that no text of the model can have.
    """
    if not (samples["enabled"] and samples["prompt"]):
        return
    try:
        vocabulary.encode(samples["prompt"])
    except UnknownCharacter as error:
        raise Mistake(f"callbacks.text_samples.prompt={samples['prompt']!r}: {error}") from error
