"""When a run is looked at, and that looking costs little and changes nothing."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.training.callbacks.gallery import Gallery
from src.training.callbacks.probe import View, undisturbed
from src.training.module import LanguageModule


class Watcher(Callback):
    """Looks at a run at certain moments, and draws at some of them.

    A moment is step 0, each validation (the end of an epoch, where there is nothing to validate on) and the end; or,
    where `every_n_steps` is given, each multiple of it and the end. At every moment it measures (`look`). It draws
    (`draw`) at validation 1, 4, 16, 64, ... and at the end, so that figures cost a long run no larger share than a
    short one; with `every_n_steps` at every moment. Which those are depends on nothing but counts in the checkpoint.

    Under several processes the first one looks and the others go on; none waits, and no collective call is made.

    Args:
        gallery: where it goes.
        every_n_steps: the cadence in optimizer steps, or None.
    """

    name = ""  # of its switch: callbacks.<name>
    draws_at_start = False  # at step 0, in the place of validation 1

    def __init__(self, gallery: Gallery, every_n_steps: int | None = None) -> None:
        self.gallery, self.every_n_steps = gallery, every_n_steps
        self.active = True
        self.validations = 0
        self.looked_at = self.drawn_at = -1  # steps

    # -- for subclasses ----------------------------------------------------------------------------------------------

    def means_something(self, view: View) -> bool:
        """Return whether there is anything to see with this model and text."""
        return True

    def look(self, view: View) -> None:
        """Measure; called at every moment."""

    def draw(self, view: View) -> None:
        """Draw what was measured, or measure and draw what is only drawn."""

    def memory(self) -> dict[str, Any]:
        """Return what a resumed run must know, as plain data."""
        return {}

    def remember(self, memory: dict[str, Any]) -> None:
        """Take it back."""

    # -- when --------------------------------------------------------------------------------------------------------

    def listens(self, hook: str) -> bool:
        """Return whether it wants to hear of a hook at all; of every step only where its cadence counts steps."""
        return hook != "on_train_batch_start" or self.every_n_steps is not None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find out whether it means anything here."""
        self.active = trainer.is_global_zero and self.means_something(self._view(trainer, pl_module))
        if not self.active and trainer.is_global_zero:
            self.gallery.left_out.append(self.name)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The moment before the first step; a resumed run has had it."""
        view = self._view(trainer, pl_module)
        self.gallery.say_left_out(type(view.model.recurrence).__name__)
        if trainer.global_step == 0 and self.every_n_steps is None:
            self._moment(view, self.draws_at_start)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """A multiple of the cadence."""
        step = trainer.global_step
        if self.every_n_steps is not None and step % self.every_n_steps == 0 and step != self.looked_at:
            self._moment(self._view(trainer, pl_module), True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation."""
        if trainer.state.fn == "fit":
            self._count(self._view(trainer, pl_module))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end of an epoch, where nothing is ever validated."""
        view = self._view(trainer, pl_module)
        if view.split() == "train":
            self._count(view)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last moment."""
        if self.drawn_at != trainer.global_step:
            self._moment(self._view(trainer, pl_module), True)

    def _count(self, view: View) -> None:
        self.validations += 1
        if self.every_n_steps is None:
            again = self.draws_at_start and self.validations == 1  # it has drawn just before
            self._moment(view, is_power_of_four(self.validations) and not again)

    def _moment(self, view: View, draws: bool) -> None:
        if not self.active:
            return
        with undisturbed(view.module):
            if self.looked_at != view.step:
                self.looked_at = view.step
                self.look(view)
            if draws:
                self.drawn_at = view.step
                self.draw(view)

    @staticmethod
    def _view(trainer: pl.Trainer, module: pl.LightningModule) -> View:
        assert isinstance(module, LanguageModule)
        return View(trainer, module, trainer.global_step)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Counts and what is remembered."""
        counts = {"validations": self.validations, "looked_at": self.looked_at, "drawn_at": self.drawn_at}
        return {**counts, **self.memory()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        memory = dict(state_dict)
        self.validations, self.looked_at = memory.pop("validations"), memory.pop("looked_at")
        self.drawn_at = memory.pop("drawn_at")
        self.remember(memory)


def is_power_of_four(n: int) -> bool:
    """1, 4, 16, 64, ..."""
    return n > 0 and n & (n - 1) == 0 and n.bit_length() % 2 == 1
