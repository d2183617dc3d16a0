"""Every private attribute of Lightning that we use, written for lightning 2.6.6: why, and what breaks without it."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop


class RunToTheEnd(_FitLoop):
    """Lightning's epoch loop, which starts and ends a run in any case.

    Lightning calls neither `on_train_start` nor `on_train_end` of a run that is resumed with no step to make. Without
    this class such a run, killed after its last checkpoint, never gets its last figures and its row of HParams.
    """

    def run(self) -> None:
        """Run as Lightning does if a step is left."""
        self.setup_data()
        if self.skip and self.trainer.global_step > 0:
            self.on_run_start()
            self.on_run_end()
        else:
            super().run()


def run_to_the_end(trainer: pl.Trainer) -> None:
    """Replace the loop of a new trainer by `RunToTheEnd`."""
    own = trainer.fit_loop
    trainer.fit_loop = RunToTheEnd(trainer, own.min_epochs, own.max_epochs)
    trainer.fit_loop.epoch_loop = own.epoch_loop


def ignore_lightnings_sigterm(trainer: pl.Trainer) -> None:
    """Forget a SIGTERM that Lightning's handler has noted before ours (`signals.StopOnSignal`) replaced it.

    Without this Lightning raises SIGTERMException after the next batch: no checkpoint is written, the exit code is 0.
    """
    trainer._signal_connector.received_sigterm = False
