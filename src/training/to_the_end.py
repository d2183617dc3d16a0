"""Lightning's loop over epochs, for a run that is taken up where no step is left."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop


class ToTheEnd(_FitLoop):
    """Begin and end a run in any case.

    A run that was killed behind its last checkpoint, but before its last figures and points were written, is taken up
    with no step to make. Lightning then calls neither `on_train_start` nor `on_train_end`, and what a run writes at its
    end would be missing for ever.
    """

    def run(self) -> None:
        """As Lightning does, wherever a step is left."""
        self.setup_data()
        if self.skip and self.trainer.global_step > 0:
            self.on_run_start()
            self.on_run_end()
        else:
            super().run()


def end_always(trainer: pl.Trainer) -> None:
    """Give a new trainer this loop in the place of its own."""
    own = trainer.fit_loop
    trainer.fit_loop = ToTheEnd(trainer, own.min_epochs, own.max_epochs)
    trainer.fit_loop.epoch_loop = own.epoch_loop
