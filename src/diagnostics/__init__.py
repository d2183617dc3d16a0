"""What watches a run: diagnostics, each beside the figure that it draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

from src.config.schema import Config
from src.data.corpus import Corpus

if TYPE_CHECKING:
    from src.diagnostics.tensorboard import RunMetrics


def build_diagnostics(config: Config, folder: Path, corpus: Corpus, metrics: RunMetrics) -> list[Callback]:
    """Return the diagnostics that are switched on for the run in `folder`; none if nobody would see anything."""
    # Imported here, since a run without diagnostics needs none of them.
    from src.diagnostics.diagnostic import Diagnostic, Diagnostics
    from src.diagnostics.gradient_flow import GradientFlow
    from src.diagnostics.recurrence import HiddenStates, InputVectors, RecurrentMatrix, RecurrentScalars
    from src.diagnostics.tensorboard import HParams, Layout
    from src.diagnostics.text import Confusions, LossByPosition, Surprisal, TextSamples

    callbacks = config.callbacks
    if config.logger.name == "none" and not callbacks.save_figures:
        return []
    kinds: tuple[type[Diagnostic], ...] = (
        RecurrentScalars, RecurrentMatrix, GradientFlow, LossByPosition, HiddenStates, Surprisal, Confusions,
        InputVectors,
    )  # fmt: skip
    options = {kind: getattr(callbacks, kind.name) for kind in kinds}
    parts = [kind(option) for kind, option in options.items() if option.enabled]
    if callbacks.text_samples.enabled:
        parts.append(TextSamples(callbacks.text_samples, corpus))
    found: list[Callback] = [Diagnostics(parts, callbacks.save_figures)] if parts else []
    found += [Layout()] if callbacks.layout.enabled else []
    found += [HParams(config, folder, metrics)] if callbacks.hparams.enabled else []
    return found
