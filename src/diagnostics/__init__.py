"""What watches a run: one file per diagnostic, its callback beside the figure that it draws."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from src.config.schema import Config
from src.data.corpus import Corpus
from src.diagnostics.diagnostic import Diagnostic, Diagnostics
from src.diagnostics.gradient_flow import GradientFlow
from src.diagnostics.hidden_states import HiddenStates
from src.diagnostics.loss_by_position import LossByPosition
from src.diagnostics.recurrent_matrix import InputVectors, RecurrentMatrix, RecurrentScalars
from src.diagnostics.tensorboard import HParams, Layout, RunMetrics
from src.diagnostics.text_figures import Confusions, Surprisal
from src.diagnostics.text_samples import TextSamples

PLAIN: tuple[type[Diagnostic], ...] = (
    RecurrentScalars, RecurrentMatrix, GradientFlow, LossByPosition, HiddenStates, Surprisal, Confusions, InputVectors,
)  # fmt: skip


def build_diagnostics(config: Config, folder: Path, corpus: Corpus, metrics: RunMetrics) -> list[Callback]:
    """Return the diagnostics that are switched on; none if nobody would see anything.

    Args:
        config: the whole configuration.
        folder: the run's folder.
        corpus: whose vocabulary labels what is shown.
        metrics: knows the best and the final metrics.
    """
    callbacks = config.callbacks
    if config.logger.name == "none" and not callbacks.save_figures:
        return []
    parts: list[Diagnostic] = [
        kind(getattr(callbacks, kind.name)) for kind in PLAIN if getattr(callbacks, kind.name).enabled
    ]
    if callbacks.text_samples.enabled:
        parts.append(TextSamples(callbacks.text_samples, corpus))
    found: list[Callback] = [Diagnostics(parts, callbacks.save_figures)] if parts else []
    if callbacks.layout.enabled:
        found.append(Layout())
    if callbacks.hparams.enabled:
        found.append(HParams(config, folder, metrics))
    return found
