"""The types of the callbacks group. Each is on or off by one word, `callbacks.<name>.enabled`, with its own cadence."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PredictedStringConfig:
    """The tutorial's line, one an epoch: the prediction and the loss before that epoch's step."""

    enabled: bool = False


@dataclass
class CallbacksConfig:
    """What watches a run."""

    predicted_string: PredictedStringConfig = field(default_factory=PredictedStringConfig)
