"""Diagnostics: callbacks that look at a run at certain moments, and change nothing of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.config.schema import DiagnosticConfig
from src.data.batching import Window, Windows, evaluation_windows
from src.diagnostics.drawing import png
from src.diagnostics.tensorboard import writers
from src.models.language_model import LanguageModel, State
from src.models.loss import Outcome, window_loss

log = logging.getLogger(__name__)
HOOKS = (
    "setup", "on_train_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end",
    "on_validation_start", "on_validation_batch_end", "on_validation_end", "on_exception",
)  # fmt: skip


class TrainedModule(Protocol):
    """What diagnostics use of the Lightning module that is trained.

    states: of each stage (`train`, `val`), left behind by its last window.
    outcome, val_outcome: the last window of training and of validation.
    characters: predicted in training so far.
    grad_norm: of the last step before clipping, if `norm_wanted`.
    clipped_steps: since it was last set to zero.
    """

    model: LanguageModel
    states: dict[str, State]
    outcome: Outcome | None
    val_outcome: Outcome | None
    characters: Tensor | int
    grad_norm: Tensor | None
    norm_wanted: bool
    clipped_steps: Tensor | float

    @property
    def device(self) -> torch.device: ...


def trained(module: pl.LightningModule) -> TrainedModule:
    """Return the module as what it is here."""
    return cast("TrainedModule", module)


# -- the evaluation view ----------------------------------------------------------------------------------------------


@dataclass
class EvalView:
    """A run at one moment, and the text that diagnostics read: that of the validation, or of training without one.

    step: optimizer steps made.
    """

    trainer: pl.Trainer
    module: TrainedModule
    step: int

    @property
    def model(self) -> LanguageModel:
        """The model itself, without what a strategy wraps around it."""
        return self.module.model

    @property
    def data(self) -> Any:
        """The data module."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of the vocabulary, by id."""
        symbols: tuple[str, ...] = self.data.corpus.vocabulary.symbols
        return symbols

    @property
    def split(self) -> str:
        """The name of the split that is read."""
        return "val" if "val" in self.data.corpus.splits else "train"

    def windows(self) -> Windows:
        """Return new windows of that split, as a validation (else training) reads them."""
        windows: Windows = self.data.val_windows() or self.data.windows()
        return windows

    def validated(self) -> Iterator[Window]:
        """Yield the windows that a validation reads, from the first one on, up to `trainer.limit_val_batches`."""
        windows = self.windows()
        limit = self.trainer.limit_val_batches if self.split == "val" else None
        count = int(limit * len(windows)) if isinstance(limit, float) else limit
        for index in range(min(count or len(windows), len(windows))):
            yield windows.window(0, index)

    def passage(self, length: int) -> list[Window]:
        """Return the first `length` characters of that split as windows of one column; see `passage`."""
        return passage(evaluation_windows(self.data.corpus.splits[self.split], self.data.config.seq_len), length)

    def read(self, window: Window, state: State) -> tuple[Outcome, State]:
        """Run a window in the precision of training; return what came out and the state after it."""
        inputs, targets = window.inputs.to(self.module.device), window.targets.to(self.module.device)
        with self.trainer.precision_plugin.forward_context():
            logits, state = self.model(inputs, state)
        return Outcome(targets, logits, window_loss(logits, targets, "mean")), state


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


@contextlib.contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """Put the module into evaluation mode without gradients; afterwards restore its modes and the random generators.

    Tensors made inside are ordinary ones, also during Lightning's validation, so that they may be kept.
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


# -- one diagnostic ---------------------------------------------------------------------------------------------------


class Diagnostic(Callback):
    """Looks at a run at certain moments, and draws at some of them.

    A moment is step 0, each validation (the end of an epoch if there is none) and the end; or, if `every_n_steps` is
    given, each multiple of it and the end. At every moment it measures (`look`). It draws (`draw`) at validations 1, 4,
    16, 64, ... and at the end, so that figures take no larger share of a long run than of a short one; with
    `every_n_steps` at every moment. These moments depend only on counts that are in the checkpoint.

    Of several processes only the first one looks. It makes no collective call, so the others need not wait.

    Args:
        config: its part of the group `callbacks`.
        save_figures: also write each figure as figures/<tag>_<step>.png.
    """

    name = ""  # callbacks.<name>, and the key of its state in a checkpoint
    draws_at_start = False  # at step 0, in place of validation 1
    kept: tuple[str, ...] = ()  # attributes that a resumed run needs, plain data

    def __init__(self, config: DiagnosticConfig, save_figures: bool = False) -> None:
        self.every_n_steps, self.save_figures = config.every_n_steps, save_figures
        self.active = True
        self.validations = 0
        self.looked_at = self.drawn_at = -1  # steps

    @property
    def state_key(self) -> str:
        """A name that does not depend on the class's."""
        return self.name

    # -- for subclasses

    def applies_to(self, view: EvalView) -> bool:
        """Return whether there is anything to see with this model and text."""
        return True

    def look(self, view: EvalView) -> None:
        """Measure; called at every moment."""

    def draw(self, view: EvalView) -> None:
        """Draw what was measured, or measure and draw what is only drawn."""

    def write_figure(self, view: EvalView, tag: str, figure: Any) -> None:
        """Write a figure as PNG to TensorBoard, and to figures/ if wanted; release it."""
        picture = png(figure)
        for writer in writers(view.trainer.loggers):
            writer.image(tag, picture, view.step)
        if self.save_figures:
            folder = Path(view.trainer.default_root_dir) / "figures"
            folder.mkdir(exist_ok=True)
            (folder / f"{tag.replace('/', '_')}_{view.step:06d}.png").write_bytes(picture)

    # -- hooks

    def listens(self, hook: str) -> bool:
        """Return whether it uses a hook: that of every step only if its cadence counts steps."""
        return hook != "on_train_batch_start" or self.every_n_steps is not None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find out whether it applies here."""
        self.active = trainer.is_global_zero and self.applies_to(view_of(trainer, pl_module))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The moment before the first step; a resumed run has had it."""
        if trainer.global_step == 0 and self.every_n_steps is None:
            self._moment(trainer, pl_module, self.draws_at_start)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """A multiple of the cadence."""
        step = trainer.global_step
        if self.every_n_steps is not None and step % self.every_n_steps == 0 and step != self.looked_at:
            self._moment(trainer, pl_module, True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation."""
        if trainer.state.fn == "fit":
            self._count(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The end of an epoch, if nothing is ever validated."""
        if view_of(trainer, pl_module).split == "train":
            self._count(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The last moment."""
        if self.drawn_at != trainer.global_step:
            self._moment(trainer, pl_module, True)

    def _count(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations += 1
        if self.every_n_steps is None:
            again = self.draws_at_start and self.validations == 1  # it has drawn just before
            self._moment(trainer, pl_module, is_power_of_four(self.validations) and not again)

    def _moment(self, trainer: pl.Trainer, pl_module: pl.LightningModule, draws: bool) -> None:
        if not self.active:
            return
        view = view_of(trainer, pl_module)
        with undisturbed(pl_module):
            if self.looked_at != view.step:
                self.looked_at = view.step
                self.look(view)
            if draws:
                self.drawn_at = view.step
                self.draw(view)

    def state_dict(self) -> dict[str, Any]:
        """Counts, and the attributes in `kept`."""
        return {name: getattr(self, name) for name in ("validations", "looked_at", "drawn_at", *self.kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        for name in self.state_dict().keys() & state_dict.keys():
            setattr(self, name, state_dict[name])


def view_of(trainer: pl.Trainer, module: pl.LightningModule) -> EvalView:
    """Return the run as it is now."""
    return EvalView(trainer, trained(module), trainer.global_step)


def is_power_of_four(n: int) -> bool:
    """1, 4, 16, 64, ..."""
    return n > 0 and n & (n - 1) == 0 and n.bit_length() % 2 == 1


# -- a diagnostic of the validation -----------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What a window cost: targets, first guesses and nats of each character, all (time, batch)."""

    targets: Tensor
    guesses: Tensor
    nats: Tensor

    @classmethod
    def of(cls, outcome: Outcome) -> Reading:
        """Keep the part of an outcome that does not grow with the vocabulary."""
        return cls(outcome.targets, outcome.logits.argmax(-1), outcome.loss.losses)


def read_windows(view: EvalView, most: int, carry: bool = True) -> list[Reading]:
    """Read the first windows of the validation, about `most` characters, from a carried state or always from zeros."""
    found: list[Reading] = []
    state: State = None
    for window in view.validated():
        outcome, state = view.read(window, state if carry and not window.starts else None)
        found.append(Reading.of(outcome))
        if characters(found) >= most:
            break
    return found


def characters(readings: Sequence[Reading]) -> int:
    """Return how many characters were read, padding included."""
    return sum(reading.targets.numel() for reading in readings)


class ValidationDiagnostic(Diagnostic):
    """Keeps the first windows of each validation; at a step without a validation it reads them itself."""

    most = most_alone = 0  # characters kept of a validation, and read at a step without one
    kept = ("seen_at",)  # the windows themselves can be read again

    def __init__(self, config: DiagnosticConfig, save_figures: bool = False) -> None:
        super().__init__(config, save_figures)
        self.seen: list[Reading] = []
        self.seen_at = -1  # the step of that validation

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the validation before."""
        self.seen, self.seen_at = [], trainer.global_step

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Keep a window."""
        outcome = trained(pl_module).val_outcome
        if self.active and outcome is not None and characters(self.seen) < self.most:
            self.seen.append(Reading.of(outcome))

    def readings(self, view: EvalView) -> list[Reading]:
        """Return the first windows of the validation as the weights of now read them, from a carried state."""
        seen, self.seen = self.seen, []
        if self.seen_at == view.step:  # a run resumed just after a validation has to read it again
            return seen or read_windows(view, self.most)
        return read_windows(view, self.most_alone)


# -- all diagnostics as one callback ----------------------------------------------------------------------------------


class Diagnostics(Callback):
    """Passes each hook on to the diagnostics that use it, in order.

    Lightning calls every callback about ten times in each step, 2 us each time; twelve callbacks that do nothing
    there would double a small network's step.

    Args:
        parts: callbacks; a part with `listens(hook) -> bool` is asked which hooks it uses.
    """

    state_key = "diagnostics"

    def __init__(self, parts: Sequence[Callback]) -> None:
        self.parts = list(parts)
        self.listeners = {hook: [part for part in self.parts if listens(part, hook)] for hook in HOOKS}

    def state_dict(self) -> dict[str, Any]:
        """The state of each part, by its key."""
        states = {part.state_key: part.state_dict() for part in self.parts}
        return {key: state for key, state in states.items() if state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them; one that was switched on since starts anew, one that was switched off is forgotten."""
        for part in self.parts:
            if state := state_dict.get(part.state_key):
                part.load_state_dict(state)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name those that do not apply to the model or text, and pass the hook on."""
        skipped = [f"callbacks.{part.name}" for part in self.parts if isinstance(part, Diagnostic) and not part.active]
        if skipped and trainer.is_global_zero:
            model = type(trained(pl_module).model.recurrence).__name__
            log.info("%s: not applicable to %s: skipped", ", ".join(skipped), model)
        for part in self.listeners["on_train_start"]:
            part.on_train_start(trainer, pl_module)


def _passing_on(hook: str) -> Callable[..., None]:
    def pass_on(self: Diagnostics, *arguments: Any, **keywords: Any) -> None:
        for part in self.listeners[hook]:
            getattr(part, hook)(*arguments, **keywords)

    return pass_on


for _hook in HOOKS:
    if _hook not in vars(Diagnostics):
        setattr(Diagnostics, _hook, _passing_on(_hook))


def listens(part: Callback, hook: str) -> bool:
    """Return whether a callback does anything at a hook."""
    overridden = getattr(type(part), hook) is not getattr(Callback, hook)
    return overridden and (not isinstance(part, Diagnostic) or part.listens(hook))
