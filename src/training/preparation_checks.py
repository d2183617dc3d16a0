"""Checks of a run against its text and this machine, before anything starts. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Container

from src.config.schema import Config, ModelConfig, TextSamplesConfig
from src.data.vocabulary import Vocabulary
from src.errors import UnknownCharacter, UserError


def check_prompt(samples: TextSamplesConfig, vocabulary: Vocabulary) -> None:
    """Raise UserError if the prompt of callbacks.text_samples has characters that the vocabulary lacks."""
    if not (samples.enabled and samples.prompt):
        return
    try:
        vocabulary.encode(samples.prompt)
    except UnknownCharacter as error:
        raise UserError(f"callbacks.text_samples.prompt={samples.prompt!r}: {error}") from error


def check_size(model: ModelConfig, vocab_size: int) -> None:
    """Raise UserError if the weights and their gradients, 4 bytes each, do not fit into the memory of this machine."""
    H, L = model.hidden_size, model.num_layers
    numbers = H * (vocab_size + H * (2 * L - 1)) * {"lstm": 4, "gru": 3}.get(model.name, 1)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 8 * numbers > memory:
        raise UserError(
            f"model.hidden_size={H} model.num_layers={L}: {numbers:,} weights and their gradients take "
            f"{8 * numbers / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}"
        )


def check_monitor(config: Config, splits: Container[str]) -> None:
    """Raise UserError if the monitored metric is of `val` and the text has no such split.

    Not for the default metric, unless early stopping or the plateau scheduler needs it.
    """
    monitor, data = config.checkpoint.monitor, config.data.name
    if "val" in splits or not monitor.startswith("val/"):
        return
    needs = ["early_stopping.enabled=true"] if config.early_stopping.enabled else []
    needs += ["scheduler=plateau"] if config.scheduler.name == "plateau" else []
    if needs or data == "hello" or monitor != "val/cross_entropy":  # which is the default of every other text
        needed = f"{' and '.join(needs)} with " if needs else ""
        raise UserError(
            f"{needed}checkpoint.monitor={monitor}: the text of data={data} has no val split; "
            f"expected a metric of training, checkpoint.monitor=train/{monitor.removeprefix('val/')}"
        )
