"""What the network writes, at several temperatures."""

from __future__ import annotations

import copy
import itertools
import logging

import numpy as np
import torch

from src.config.schema import SamplingConfig, TextSamplesConfig
from src.data.batching import LineSplit, PairSplit
from src.data.corpus import Corpus
from src.diagnostics.diagnostic import Diagnostic, EvalView
from src.diagnostics.tensorboard import writers
from src.errors import UserError
from src.inference.generate import generate_ids
from src.models.language_model import LanguageModel

log = logging.getLogger(__name__)


class TextSamples(Diagnostic):
    """Write `samples/temperature_<x>` at every moment, shown as it is; nothing if the logits are not finite.

    The same random numbers at every moment, from generators of its own: what changes from sample to sample is the
    network. It goes on from the prompt; without one from a newline (in a list the boundary of its items, else the
    training text's first character).
    """

    name = "text_samples"

    def __init__(self, config: TextSamplesConfig, corpus: Corpus) -> None:
        super().__init__(config)
        self.config, self.corpus = config, corpus

    def applies_to(self, view: EvalView) -> bool:
        """The tutorial's pair predicts another character than the next one: what it writes is no text."""
        return not isinstance(self.corpus.splits["train"], PairSplit)

    def look(self, view: EvalView) -> None:
        """Write a text at each temperature."""
        if view.step == 0:
            return  # noise, whatever the model
        model = view.model
        first = next(model.parameters())
        if first.device.type != "cpu" or first.dtype not in (torch.float32, torch.float64):
            model = copy.deepcopy(model).cpu().float()  # characters one by one are fastest on a CPU
        written = [self._sample(model, temperature) for temperature in self.config.temperatures]
        if any(text is None for text in written):
            log.info("at step %d there are no samples: the logits are not finite", view.step)
            return
        for temperature, text in zip(self.config.temperatures, written, strict=True):
            for writer in writers(view.trainer.loggers):
                writer.text(f"samples/temperature_{float(temperature)}", f"{self.config.prompt or ''}{text}", view.step)

    def _sample(self, model: LanguageModel, temperature: float) -> str | None:
        """Return a text of `length` characters, or None if the network has diverged."""
        split = self.corpus.splits["train"]
        boundary = split.boundary if isinstance(split, LineSplit) else None  # each item begins from a zero state
        steps = generate_ids(model, self._start(), SamplingConfig(temperature), [0], boundary)
        try:
            ids = [int(step[0]) for step in itertools.islice(steps, self.config.length)]
        except UserError:
            return None
        return self.corpus.vocabulary.decode(ids)

    def _start(self) -> np.ndarray:
        """Return the ids to go on from."""
        split, vocabulary = self.corpus.splits["train"], self.corpus.vocabulary
        if self.config.prompt:
            return vocabulary.encode(self.config.prompt)
        if isinstance(split, LineSplit):
            return np.array([split.boundary])
        newline = [i for i, symbol in enumerate(vocabulary.symbols) if symbol == "\n"]
        return np.array(newline or [int(split.ids[0])])
