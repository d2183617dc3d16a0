"""What may be asked of a model, and what is wrong with it: known before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

from src import paths
from src.data.errors import UnknownCharacter
from src.data.vocabulary import Vocabulary
from src.mistakes import Mistake
from src.models.sampling import Choice

PRECISIONS = ("32-true", "64-true")  # trainer.precision's words for float32 and float64
EXPORTED = {"onnx": "step.onnx", "torch": "step.pt2", "safetensors": "weights.safetensors"}  # what they are called


@dataclass(frozen=True)
class Writing:
    """What is wanted: how many symbols, how they are chosen, from which seed, how many texts, where they end."""

    length: int = 200
    choice: Choice = field(default_factory=Choice)
    seed: int | None = 0
    num_samples: int = 1
    stop: str | None = None

    def mistakes(self, vocab_size: int | None = None) -> list[str]:
        """What is wrong with it, one text a mistake; `vocab_size`, where it is known, bounds top_k."""
        found = self.choice.mistakes(vocab_size)
        for name, least in (("length", "at least 1"), ("num_samples", "at least 1"), ("seed", "0 or more, or null")):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                if not (name == "seed" and value is None):
                    found.append(f"{name}={value!r}: expected a whole number")
            elif value < (name != "seed"):
                found.append(f"{name}={value}: expected {least}")
        stop: Any = self.stop
        if not isinstance(stop, str | None):
            found.append(f"stop={stop!r}: expected a text")
        elif stop == "":
            found.append("stop is empty: expected the text before which a sample ends; leave it out for none")
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


def mistakes_in_output(format: str, output: str | None) -> list[str]:
    """What is wrong with the file that an export is to write; None is one of the program's own choice."""
    if output is None:
        return []
    if output == "":
        return ["output is empty: expected a file to write; leave it out for export/ in the run's folder"]
    target = paths.given(output)
    if os.path.isdir(target):  # False of a name too long, where pathlib raises
        return [f"output={output} is a folder; name a file in it, {target / EXPORTED[format]} for one"]
    found = [] if os.path.isdir(target.parent) else [f"output={output}: there is no folder {target.parent}"]
    if format == "safetensors" and target.suffix != ".safetensors":
        named = Path(output).with_suffix(".safetensors")
        found.append(f"output={output}: weights are known by their suffix when they are read; output={named} for one")
    return found


def check_size(model: Mapping[str, Any], vocab_size: int) -> None:
    """Hold a network to the memory of this machine, which has to hold its weights and their gradients, 4 bytes each.

    Raises:
        Mistake: it is larger, and the system would end the run in the middle without a word.
    """
    H, L = model["hidden_size"], model["num_layers"]
    numbers = H * (vocab_size + H * (2 * L - 1)) * {"lstm": 4, "gru": 3}.get(model["name"], 1)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 8 * numbers > there:
        raise Mistake(
            f"model.hidden_size={H} model.num_layers={L}: {numbers:,} weights and their gradients take "
            f"{8 * numbers / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}"
        )


def check_monitor(config: Mapping[str, Any], splits: Container[str]) -> None:
    """Hold the monitored metric to the splits of the text.

    Raises:
        Mistake: it is one of `val`, the text has none, and the user asked for it or for what cannot do without it.
    """
    monitor, data = config["checkpoint"]["monitor"], config["data"]["name"]
    if "val" in splits or not monitor.startswith("val/"):
        return
    needs = ["early_stopping.enabled=true"] if config["early_stopping"]["enabled"] else []
    needs += ["scheduler=plateau"] if config["scheduler"]["name"] == "plateau" else []
    if needs or data == "hello" or monitor != "val/cross_entropy":  # which is the default of every other text
        told = f"{' and '.join(needs)} with " if needs else ""
        raise Mistake(
            f"{told}checkpoint.monitor={monitor}: the text of data={data} has no val split; "
            f"expected a metric of training, checkpoint.monitor=train/{monitor.removeprefix('val/')}"
        )
