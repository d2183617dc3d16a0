"""Lightning's Trainer and its callbacks, from the configuration."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from src.config.schema import Config
from src.data.corpus import Corpus
from src.diagnostics import build_diagnostics
from src.diagnostics.loggers import ScalarLogger
from src.diagnostics.profiler_callback import ProfilerCallback
from src.diagnostics.tensorboard import HParams
from src.training.checkpoint import AtomicCheckpointIO, CheckpointCallback
from src.training.console import in_notebook
from src.training.lightning_compat import run_to_the_end
from src.training.machine import uses_cuda, world_size
from src.training.metrics_log import EarlyStopping, MetricsLog, PredictedString, ProgressBar
from src.training.signals import StopOnSignal

# Keys of the `trainer` group that are used here, by `prepare` and by callbacks; Lightning's Trainer gets the others
OURS = {"threads", "profile", "max_time", "log_every_n_steps", "limit_train_batches", "overfit_batches",
        "average_last_group", "enable_progress_bar", "tf32", "cuda_graph"}  # fmt: skip


@dataclass
class Built:
    """A trainer, and those of its callbacks that a run itself uses."""

    trainer: pl.Trainer
    metrics: MetricsLog
    scalars: ScalarLogger
    signals: StopOnSignal


def build_trainer(
    config: Config, folder: Path, corpus: Corpus, steps_an_epoch: int, loggers: Sequence[Logger] = ()
) -> Built:
    """Build the trainer of a run in `folder`; `steps_an_epoch` counts optimizer steps."""
    keys, checkpoint = config.trainer, config.checkpoint
    prints_predictions = config.callbacks.predicted_string.enabled
    stopper = EarlyStopping(config.early_stopping, checkpoint.monitor) if config.early_stopping.enabled else None
    metrics = MetricsLog(folder / "metrics.jsonl", checkpoint, prints_predictions, stopper)
    scalars = ScalarLogger(min(keys.log_every_n_steps, steps_an_epoch))  # a short epoch too has a point
    checkpoints = CheckpointCallback(folder / "checkpoints", checkpoint, metrics) if checkpoint.enabled else None
    signals = StopOnSignal(checkpoints, keys.max_time)
    callbacks: list[Callback] = [signals, scalars, metrics]
    if prints_predictions:
        callbacks.append(PredictedString(corpus.vocabulary.decode))
    others = vars(config.callbacks).keys() - {"save_figures", "predicted_string"}
    if any(getattr(config.callbacks, name).enabled for name in others):
        callbacks += build_diagnostics(config, folder, corpus, metrics)
        # A line of metrics.jsonl has what the diagnostics have measured, and the row of HParams what the last line has
        callbacks.sort(key=lambda one: isinstance(one, MetricsLog) + 2 * isinstance(one, HParams))
    if keys.profile:
        callbacks.append(ProfilerCallback(folder / "trace.json"))
    callbacks += [one for one in (stopper, checkpoints) if one]  # checkpoints last: they store the state of the others
    if keys.enable_progress_bar and (sys.stdout.isatty() or in_notebook()) and not prints_predictions:
        callbacks.append(ProgressBar(keys.run_steps(steps_an_epoch)))
    given = {key: value for key, value in vars(keys).items() if key not in OURS}
    if uses_cuda(keys) and world_size(keys) > 1:  # NCCL between the GPUs; what the processes agree on goes by gloo
        given["strategy"] = DDPStrategy(process_group_backend="cpu:gloo,cuda:nccl")
    if "val" not in corpus.splits:
        given["limit_val_batches"] = 0
    trainer = pl.Trainer(
        **given,
        callbacks=callbacks,
        logger=list(loggers),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        log_every_n_steps=1,  # Lightning's own cadence; ours is that of `ScalarLogger`
        enable_progress_bar=False,  # ours is a callback
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    run_to_the_end(trainer, lambda: metrics.close(trainer), checkpoints.save if checkpoints else None)
    return Built(trainer, metrics, scalars, signals)
