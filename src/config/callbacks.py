"""The types of the callbacks group. Each is on or off by one word, `callbacks.<name>.enabled`, with its own cadence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Switch:
    """On or off."""

    enabled: bool = False


@dataclass
class WatcherConfig(Switch):
    """What looks at a run now and then; None: at the moments that src/training/callbacks/watcher.py names."""

    every_n_steps: int | None = None


@dataclass
class TextSamplesConfig(WatcherConfig):
    """A text at each of several temperatures."""

    temperatures: list[float] = field(default_factory=lambda: [0.5, 0.8, 1.0])
    length: int = 200
    prompt: str | None = None


@dataclass
class CallbacksConfig:
    """What watches a run."""

    save_figures: bool = False
    predicted_string: Switch = field(default_factory=Switch)
    recurrent_scalars: WatcherConfig = field(default_factory=WatcherConfig)
    recurrent_matrix: WatcherConfig = field(default_factory=WatcherConfig)
    gradient_flow: WatcherConfig = field(default_factory=WatcherConfig)
    loss_by_position: WatcherConfig = field(default_factory=WatcherConfig)
    hidden_states: WatcherConfig = field(default_factory=WatcherConfig)
    surprisal: WatcherConfig = field(default_factory=WatcherConfig)
    confusions: WatcherConfig = field(default_factory=WatcherConfig)
    input_vectors: WatcherConfig = field(default_factory=WatcherConfig)
    text_samples: TextSamplesConfig = field(default_factory=TextSamplesConfig)
    layout: Switch = field(default_factory=Switch)
    hparams: Switch = field(default_factory=Switch)


def mistakes_in_callbacks(callbacks: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the group beyond its types, one text a mistake."""
    for name, words in callbacks.items():
        if isinstance(words, Mapping) and (every := words.get("every_n_steps")) is not None and every < 1:
            yield f"callbacks.{name}.every_n_steps={every}: expected at least 1, or null for its own moments"
    samples = callbacks["text_samples"]
    if samples["length"] < 1:
        yield f"callbacks.text_samples.length={samples['length']}: expected at least 1 character"
    if not samples["temperatures"]:
        yield "callbacks.text_samples.temperatures=[]: expected at least one; for none, text_samples.enabled=false"
    for temperature in samples["temperatures"]:
        if not 0 <= temperature < float("inf"):
            expected = "expected 0 (always the likeliest) or a number above it"
            yield f"callbacks.text_samples.temperatures={temperature}: {expected}"
