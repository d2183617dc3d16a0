"""logger=csv: every scalar as a line `step,tag,value`, appended, so that a resumed run goes on in the same file."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from src.config.schema import Config
from src.data.corpus import Corpus
from src.diagnostics import build_diagnostics
from src.diagnostics.profiler_callback import ProfilerCallback
from src.diagnostics.scalar_logger import ScalarLogger
from src.diagnostics.tensorboard import RunTensorBoard
from src.training.checkpoint import AtomicCheckpointIO
from src.training.checkpoint_callback import Keeper
from src.training.lightning_compat import Unprofiled, end_always, without_idle_hooks
from src.training.metrics_log import History, StopEarly
from src.training.predicted_string import PredictedString
from src.training.signals import StopOnSignal


class RunCSV(Logger):
    """metrics.csv in the run's folder. Lightning's own CSV logger deletes an existing file when it starts.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"

    @property
    def name(self) -> str:
        """Nothing: the run's folder is the name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, for the same reason."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the scalars of a step."""
        new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "tag", "value"])
            writer.writerows([step, tag, value] for tag, value in metrics.items())

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml has them."""


# ---- Lightning's trainer, from the configuration: the loggers, what watches, and where checkpoints go.

# Words of the `trainer` group that are not handed to Lightning's Trainer as they are.
OURS = (
    "threads",
    "profile",
    "max_time",
    "log_every_n_steps",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "limit_train_batches",
    "overfit_batches",
)


@dataclass
class Watched:
    """A trainer, the two callbacks whose knowledge goes into the run's record, and the one that hears signals."""

    trainer: pl.Trainer
    history: History
    curves: ScalarLogger
    signals: StopOnSignal


def build_trainer(config: Config, folder: Path, corpus: Corpus, steps_an_epoch: int) -> Watched:
    """Build the trainer of a run.

    Args:
        config: the whole configuration.
        folder: the run's folder.
        corpus: whose vocabulary reads predictions back.
        steps_an_epoch: optimizer steps.
    """
    words, callbacks = config.trainer, config.callbacks
    says_lines = callbacks["predicted_string"]["enabled"]
    monitor, mode = config.checkpoint.monitor, config.checkpoint.mode
    stopper = None
    if config.early_stopping.enabled:
        stopper = StopEarly(monitor, mode, *(config.early_stopping[key] for key in ("patience", "min_delta")))
    history = History(folder / "metrics.jsonl", monitor, mode, quiet=says_lines, stopper=stopper)
    curves = ScalarLogger(min(words["log_every_n_steps"], steps_an_epoch))  # a short epoch too has its point
    keeper = None
    if config.checkpoint.enabled:
        cadence = {key: config.checkpoint[key] for key in ("every_n_steps", "every_n_minutes")}
        keeper = Keeper(folder / "checkpoints", history, **cadence)
    signals = StopOnSignal(keeper, words["max_time"])
    watching: list[Callback] = [signals, curves, history]
    if says_lines:
        watching.append(PredictedString(corpus.vocabulary.decode))
    watching += build_diagnostics(config, folder, corpus, history)
    if words["profile"]:
        watching.append(ProfilerCallback(folder / "trace.json"))
    if stopper is not None:
        watching.append(stopper)
    if keeper is not None:
        watching.append(keeper)  # last: what the others know by then goes into the checkpoint
    bar = words["enable_progress_bar"] and sys.stdout.isatty() and not says_lines
    if bar:
        watching.append(TQDMProgressBar(refresh_rate=50))  # a redraw at every step would cost a tenth of a small one
    without_idle_hooks(watching)
    given = {key: value for key, value in words.items() if key not in OURS}
    if "val" not in corpus.splits:
        given["limit_val_batches"] = 0
    trainer = pl.Trainer(
        **given | {"enable_progress_bar": bar},
        gradient_clip_val=words["gradient_clip_val"],
        gradient_clip_algorithm=words["gradient_clip_algorithm"],
        callbacks=watching,
        logger=_loggers(config.logger.name, folder),
        plugins=[AtomicCheckpointIO()],
        profiler=Unprofiled(),
        default_root_dir=folder,
        log_every_n_steps=1,  # Lightning's own cadence; ours is that of `ScalarLogger`
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    end_always(trainer)
    return Watched(trainer, history, curves, signals)


def _loggers(name: str, folder: Path) -> list[Logger]:
    if name == "tensorboard":
        return [RunTensorBoard(folder)]
    return [RunCSV(folder)] if name == "csv" else []
