"""All that watch a run, as one callback of Lightning's, which knows what each of them has cost.

Lightning asks every callback at some ten places of every step, 2 us each time; twelve callbacks that have nothing to
say there would double a small network's step. This one passes on only what somebody listens to.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.data.batching import Window, Windows, evaluation_windows
from src.diagnostics.figure_logger import Gallery
from src.models.language_model import LanguageModel, State
from src.models.loss import WindowLoss, window_loss
from src.training.module import LanguageModule

HOOKS = (
    "setup", "on_train_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end",
    "on_validation_start", "on_validation_batch_end", "on_validation_end", "on_exception",
)  # fmt: skip


class Watching(Callback):
    """Pass on what happens, in order.

    Args:
        parts: callbacks; a part with `listens(hook) -> bool` is asked what it wants to hear.
    """

    def __init__(self, parts: Sequence[Callback]) -> None:
        self.parts = list(parts)
        self.listeners = {hook: [part for part in self.parts if listens(part, hook)] for hook in HOOKS}
        self.seconds = {type(part).__name__: 0.0 for part in self.parts}  # spent in each so far

    def _pass_on(self, hook: str, *arguments: Any) -> None:
        for part in self.listeners[hook]:
            started = time.perf_counter()
            getattr(part, hook)(*arguments)
            self.seconds[type(part).__name__] += time.perf_counter() - started

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Pass it on, as all that follow."""
        self._pass_on("setup", trainer, pl_module, stage)

    def on_train_start(self, *arguments: Any) -> None:
        self._pass_on("on_train_start", *arguments)

    def on_train_batch_start(self, *arguments: Any) -> None:
        self._pass_on("on_train_batch_start", *arguments)

    def on_train_batch_end(self, *arguments: Any) -> None:
        self._pass_on("on_train_batch_end", *arguments)

    def on_train_epoch_end(self, *arguments: Any) -> None:
        self._pass_on("on_train_epoch_end", *arguments)

    def on_train_end(self, *arguments: Any) -> None:
        self._pass_on("on_train_end", *arguments)

    def on_validation_start(self, *arguments: Any) -> None:
        self._pass_on("on_validation_start", *arguments)

    def on_validation_batch_end(self, *arguments: Any) -> None:
        self._pass_on("on_validation_batch_end", *arguments)

    def on_validation_end(self, *arguments: Any) -> None:
        self._pass_on("on_validation_end", *arguments)

    def on_exception(self, *arguments: Any) -> None:
        self._pass_on("on_exception", *arguments)

    def state_dict(self) -> dict[str, Any]:
        """What each must know after a resume."""
        states = {type(part).__name__: part.state_dict() for part in self.parts}
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back; one that was switched on or off since begins anew or is forgotten."""
        for part in self.parts:
            state = state_dict.get(type(part).__name__)
            if state:
                part.load_state_dict(state)


def listens(part: Callback, hook: str) -> bool:
    """Return whether a callback does anything at a hook."""
    has_it = getattr(type(part), hook) is not getattr(Callback, hook)
    return has_it and (part.listens(hook) if hasattr(part, "listens") else True)


# ---- A look at the model in the middle of training that leaves no trace, and the text that it reads then.


@dataclass
class View:
    """A run at one moment.

    step: optimizer steps made.
    """

    trainer: pl.Trainer
    module: LanguageModule
    step: int

    @property
    def model(self) -> LanguageModel:
        """The model itself, outside of whatever a strategy wraps around it."""
        return self.module.model

    def windows(self) -> Windows:
        """Return the validation's windows (those of training, where there is no val): new ones, nobody's position."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        windows: Windows = data.val_windows() or data.windows()
        return windows

    def passage(self, length: int) -> list[Window]:
        """Return the first `length` characters of that text, read as one stream; see `passage`."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        return passage(evaluation_windows(data.corpus.splits[self.split()], data.seq_len), length)

    def validated(self) -> Iterator[Window]:
        """Yield the windows that a validation reads, from the first one: `trainer.limit_val_batches` may end it."""
        windows = self.windows()
        limit = self.trainer.limit_val_batches if self.split() == "val" else None
        count = int(limit * len(windows)) if isinstance(limit, float) else limit
        for index in range(min(count or len(windows), len(windows))):
            yield windows.window(0, index)

    def split(self) -> str:
        """Return which split those windows are of."""
        corpus = self.trainer.datamodule.corpus  # type: ignore[attr-defined]
        return "val" if "val" in corpus.splits else "train"

    def read(self, window: Window, state: State) -> tuple[Tensor, WindowLoss, State]:
        """Return logits (time, batch, vocab), losses and the state behind a window, in the precision of training."""
        inputs, targets = window.inputs.to(self.module.device), window.targets.to(self.module.device)
        with self.trainer.precision_plugin.forward_context():
            logits, state = self.model(inputs, state)
        return logits, window_loss(logits, targets, "mean"), state


@contextlib.contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """While it lasts the module is in evaluation mode without gradients; afterwards modes and generators are as before.

    Tensors made inside are ordinary ones, also within Lightning's validation, so that they may be kept.
    """
    modes = [(part, part.training) for part in module.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    module.eval()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def passage(windows: Windows, length: int) -> list[Window]:
    """Return the first `length` characters of a text as windows of one column; of a list item by item."""
    found: list[Window] = []
    for index in range(len(windows)):
        window = windows.window(0, index)
        items = windows.plan.fresh
        for column in range(window.inputs.shape[1]) if items else [0]:
            real = min(int((window.targets[:, column] >= 0).sum()), length)
            if real:
                inputs, targets = (part[:real, column : column + 1] for part in (window.inputs, window.targets))
                found.append(Window(inputs, targets, items or window.starts))
                length -= real
            if not length:
                return found
    return found


# ---- When a run is looked at, and that looking costs little and changes nothing.


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
