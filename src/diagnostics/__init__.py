"""Diagnostics of a run, each next to the figure that it draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from src.config.schema import Config


def build_diagnostics(config: Config, folder: Path, metrics: Any) -> list[Callback]:
    """Return the diagnostics that are switched on for the run in `folder`; without a logger those that measure."""
    # Imported here, since a run without diagnostics needs none of them.
    from src.diagnostics.diagnostic import Diagnostic, Diagnostics
    from src.diagnostics.gradient_flow import GradientFlow
    from src.diagnostics.recurrence import HiddenStates, InputVectors, RecurrentMatrix, RecurrentScalars
    from src.diagnostics.tensorboard import HParams, Layout
    from src.diagnostics.text import Confusions, LossByPosition, Surprisal, TextSamples

    callbacks = config.callbacks
    seen = bool(config.logger) or callbacks.save_figures
    kinds: tuple[type[Diagnostic], ...] = (
        RecurrentScalars, RecurrentMatrix, GradientFlow, LossByPosition, HiddenStates, Surprisal, Confusions,
        InputVectors, TextSamples,
    )  # fmt: skip
    options = {kind: getattr(callbacks, kind.name) for kind in kinds}
    parts = [kind(option) for kind, option in options.items() if option.enabled and (seen or kind.measures)]
    found: list[Callback] = [Diagnostics(parts, callbacks.save_figures)] if parts else []
    found += [Layout()] if callbacks.layout.enabled and seen else []
    found += [HParams(config, folder, metrics)] if callbacks.hparams.enabled and seen else []
    return found
