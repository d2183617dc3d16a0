"""What the network writes, at several temperatures."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Sequence

import numpy as np
import torch

from src.config.schema import SamplingConfig
from src.data.corpus import Corpus
from src.data.splits import LineSplit, PairSplit
from src.diagnostics.diagnostic import View, Watcher
from src.diagnostics.figure_logger import Gallery
from src.inference.generate import expand_state, read_prompt, sampler, uniform_numbers
from src.inference.incremental import stepper
from src.models.language_model import LanguageModel

log = logging.getLogger(__name__)


class TextSamples(Watcher):
    """Write `samples/temperature_<x>` at every moment, shown as it is; nothing where the logits are not finite.

    The same random numbers at every moment, from generators of its own: what changes from sample to sample is the
    network.

    Args:
        gallery, every_n_steps: see `Watcher`.
        corpus: whose vocabulary reads ids back.
        temperatures: one text each.
        length: characters of each.
        prompt: what it goes on from; None for a newline (in a list the boundary, else the training text's first
            character).
    """

    name = "text_samples"

    def __init__(
        self, gallery: Gallery, every_n_steps: int | None, corpus: Corpus, temperatures: Sequence[float], length: int,
        prompt: str | None,
    ) -> None:  # fmt: skip
        super().__init__(gallery, every_n_steps)
        self.corpus, self.temperatures, self.length, self.prompt = corpus, tuple(temperatures), length, prompt

    def means_something(self, view: View) -> bool:
        """The tutorial's pair names another character than the next one: what it writes is no text."""
        return not isinstance(self.corpus.splits["train"], PairSplit)

    def look(self, view: View) -> None:
        """Write a text at each temperature."""
        if view.step == 0:
            return  # noise, whatever the model
        model = view.model
        first = next(model.parameters())
        if first.device.type != "cpu" or first.dtype not in (torch.float32, torch.float64):
            model = copy.deepcopy(model).cpu().float()  # characters one by one are fastest on a CPU
        written = self._written(model)
        if written is None:
            log.info("at step %d there are no samples: the logits are not finite", view.step)
            return
        for temperature, ids in zip(self.temperatures, written, strict=True):
            text = (self.prompt or "") + self.corpus.vocabulary.decode(ids)
            self.gallery.text(view.trainer, f"samples/temperature_{float(temperature)}", text, view.step)

    def _written(self, model: LanguageModel) -> np.ndarray | None:
        """Return ids (temperatures, length), all written side by side; None where the network has diverged."""
        split, streams = self.corpus.splits["train"], len(self.temperatures)
        logits, state = read_prompt(model, self._start())
        machine = stepper(model, streams, expand_state(state, streams))
        draws = [sampler(SamplingConfig(temperature)) for temperature in self.temperatures]
        rows, written = np.repeat(logits[None], streams, axis=0), []
        for uniform in itertools.islice(uniform_numbers([0] * streams), self.length):
            if not np.isfinite(rows).all():
                return None
            ids = np.concatenate([draw(rows[i : i + 1], uniform[i : i + 1]) for i, draw in enumerate(draws)])
            written.append(ids)
            if isinstance(split, LineSplit):
                machine.restart(ids == split.boundary)  # each item begins from a zero state
            with np.errstate(over="ignore", invalid="ignore"):
                rows = machine.step(ids)
        return np.stack(written, axis=1)

    def _start(self) -> np.ndarray:
        """Return the ids to go on from."""
        split, vocabulary = self.corpus.splits["train"], self.corpus.vocabulary
        if self.prompt:
            return vocabulary.encode(self.prompt)
        if isinstance(split, LineSplit):
            return np.array([split.boundary])
        newline = [i for i, symbol in enumerate(vocabulary.symbols) if symbol == "\n"]
        return np.array(newline or [int(split.ids[0])])
