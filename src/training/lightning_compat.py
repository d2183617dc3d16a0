"""Every private attribute of Lightning that we use, written for lightning 2.6.6: why, and what breaks without it."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from src.training.checkpoint import CheckpointCallback


class ResumableEpoch(_TrainingEpochLoop):
    """Lightning's loop over the windows of an epoch, which saves when asked to, and before it is left in the middle.

    Within an epoch a resume is exact only after any validation, where Lightning has no hook: saved before it, a run
    would not validate; saved at the end that Lightning gives to a partial epoch, it would train the rest twice.
    It is not exact while gradients of several windows are summed, or at the last window of an epoch.
    """

    checkpoints: CheckpointCallback | None = None

    @property
    def within(self) -> bool:
        """Whether the epoch has windows left; the one that was fetched last may be."""
        now = self.batch_progress.current
        return now.completed < now.ready or not self._num_ready_batches_reached()

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        self._batches_that_stepped -= self._skip_next_val  # resumed after a validation: this step was counted before
        super().on_advance_end(data_fetcher)
        asked = self.checkpoints is not None and self.checkpoints.requested and not self._should_accumulate()
        if self.checkpoints and self.within and (self.done or asked):
            self.checkpoints.save(self.trainer)


class RunToTheEnd(_FitLoop):
    """Lightning's loop over epochs, which starts and ends a run in any case, and ends it with a validation.

    Lightning calls neither `on_train_start` nor `on_train_end` of a run that is resumed with no step to make. Without
    this class such a run, killed after its last checkpoint, never gets its last figures and its row of HParams. Nor
    does Lightning validate a run that ends between two validations.
    """

    epoch_loop: ResumableEpoch
    closing: Callable[[], bool]

    def run(self) -> None:
        self.setup_data()
        if self.skip and self.trainer.global_step > 0:
            epochs = self.epoch_progress.total
            epochs.completed = epochs.ready  # the checkpoint was written just before Lightning counted the last one
            self.on_run_start()
            self.on_run_end()
        else:
            super().run()

    def _iteration_based_training(self) -> bool:
        # Lightning's: max_steps >= 0, by which a run resumed between two epochs would count the first of them twice
        return not self.epoch_loop.batch_progress.is_last_batch

    def advance(self) -> None:
        """Run an epoch; if it was left within, the run ends here, without the end of the epoch."""
        super().advance()
        if self.epoch_loop.within:
            raise StopIteration

    def on_run_end(self) -> None:
        if self.closing():
            self.epoch_loop.val_loop.restarting = False
            self.trainer.validating = True
            self.epoch_loop.val_loop.run()
            self.trainer.training = True
        super().on_run_end()


def run_to_the_end(trainer: pl.Trainer, closing: Callable[[], bool], checkpoints: CheckpointCallback | None) -> None:
    """Replace the loops of a new trainer; `closing` says whether the end needs a validation."""
    own = trainer.fit_loop
    trainer.fit_loop = loop = RunToTheEnd(trainer, own.min_epochs, own.max_epochs)
    loop.closing, loop.epoch_loop = closing, ResumableEpoch(trainer, own.min_steps, own.max_steps)
    loop.epoch_loop.checkpoints = checkpoints


def ignore_lightnings_sigterm(trainer: pl.Trainer) -> None:
    """Forget a SIGTERM that Lightning's handler has noted before ours (`signals.StopOnSignal`) replaced it.

    Without this Lightning raises SIGTERMException after the next batch: no checkpoint is written, the exit code is 0.
    """
    trainer._signal_connector.received_sigterm = False
