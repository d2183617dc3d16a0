"""Diagnostics: measure a run at given steps without changing it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from src.config.schema import DiagnosticConfig, limited
from src.data.batching import Window, Windows, evaluation_windows
from src.diagnostics.drawing import png, styled
from src.diagnostics.loggers import log_figure, take_figures, write_scalars, writers
from src.models.language_model import LanguageModel, State, WindowLoss, window_loss

log = logging.getLogger(__name__)
POWERS_OF_FOUR = {4**n for n in range(16)}  # 1, 4, 16, 64, ...


class Reading(NamedTuple):
    """A window that was read: targets, first guesses and nats of each character, all (time, batch)."""

    targets: Tensor
    guesses: Tensor
    nats: Tensor
    lead: int = 0  # steps before the window itself: the warm-up of a validation


class EvalView:
    """A run at one moment, and the text that diagnostics read: the validation text, or else the training text."""

    def __init__(self, trainer: pl.Trainer, module: Any) -> None:
        self.trainer, self.module = trainer, module  # the latter is src.training.module.LanguageModule
        self.step = trainer.global_step  # optimizer steps made
        self.model: LanguageModel = module.model if module.averaged is None else module.averaged.module
        self.data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.split = "val" if "val" in self.data.corpus.splits else "train"
        self.writers = writers(trainer)  # the loggers that write for TensorBoard
        self.symbols: tuple[str, ...] = self.data.corpus.vocabulary.symbols  # by id

    def windows(self, warms: bool = False) -> Windows:
        """Return new windows of the split, as a validation (else training) reads them, with or without its warm-up."""
        return self.data.val_windows(warms) or self.data.windows()

    def passage(self, length: int) -> list[Window]:
        """Return the first `length` characters of the split as windows of one column; of a list item by item."""
        windows, found = evaluation_windows(self.data.corpus.splits[self.split], self.data.config.window[0]), []
        for index in range(len(windows)):
            inputs, targets, starts, _ = windows.window(0, index)
            real = min(1 + int((targets[:, 0] >= 0).nonzero()[-1]), length)
            found.append(Window(inputs[:real], targets[:real], starts))
            length -= real
            if not length:
                break
        return found

    def read(self, window: Window, state: State) -> tuple[WindowLoss, State]:
        """Run a window in the precision of training; return what came out and the state after it."""
        inputs, targets = window.inputs.to(self.module.device), window.targets.to(self.module.device)
        with self.trainer.precision_plugin.forward_context():
            logits, state = self.model(inputs, state)
        return window_loss(logits, targets, "mean"), state

    def readings(self, most: int, carry: bool = True) -> list[Reading]:
        """Read the validation's first windows, about `most` characters, from a carried state or always from zeros."""
        windows, found, state, characters = self.windows(warms=carry), [], None, 0
        limit = self.module.config.trainer.limit_val_batches if self.split == "val" else 1.0
        for index in range(limited(len(windows), limit)):
            window, lead = windows.window(0, index), getattr(windows.plan, "warmup", 0) * (index == 0)
            loss, state = self.read(window, state if carry and not window.starts else None)
            found.append(Reading(window.targets, loss.logits.argmax(-1).cpu(), loss.losses.cpu(), lead))
            characters += window.targets[lead:].numel()
            if characters >= most:
                break
        return found


@contextlib.contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """Put the module into evaluation mode without gradients; afterwards restore its modes and the random generators."""
    modes = [(part, part.training) for part in module.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    module.eval()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad():  # its tensors may be kept
            yield
    finally:
        for part, training in modes:
            part.training = training


class Diagnostic:
    """One diagnostic of a run; `Diagnostics` calls `look` at every moment and `draw` at some."""

    name = ""  # callbacks.<name>, and the key of its state in a checkpoint
    measures = False  # `look` returns numbers, which metrics.jsonl gets even if nobody sees a figure
    draws_at_start = False  # at step 0, in place of validation 1
    kept: tuple[str, ...] = ()  # attributes that a resumed run needs, plain data

    def __init__(self, config: DiagnosticConfig) -> None:
        self.every_n_steps = config.every_n_steps
        self.validations = 0
        self.looked_at = self.drawn_at = -1  # steps

    def applies_to(self, view: EvalView) -> bool:
        """Return whether there is anything to see with this model and text."""
        return True

    def look(self, view: EvalView) -> Mapping[str, float]:
        """Measure, and return numbers by tag."""
        return {}

    def draw(self, view: EvalView) -> dict[str, Any]:
        """Return figures by tag: of what was measured, or of what is only measured to be drawn."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("validations", "looked_at", "drawn_at", *self.kept)}


class Diagnostics(Callback):
    """Lets each diagnostic look at the run at its moments.

    A moment is step 0, each validation (the end of an epoch if there is none) and the end; or each multiple of
    `every_n_steps` and the end. They draw at validations 1, 4, 16, ... and at the end, since figures cost time; with
    `every_n_steps` at every moment. Of several processes only the first one looks: no collective call. The numbers
    go to the loggers and into the module's `measures`: each line of metrics.jsonl has those of its own step.
    """

    state_key = "diagnostics"

    def __init__(self, parts: Sequence[Diagnostic], save_figures: bool = False) -> None:
        self.parts, self.save_figures = list(parts), save_figures
        self.active: list[Diagnostic] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        view = EvalView(trainer, pl_module)
        self.active = [part for part in self.parts if trainer.is_global_zero and part.applies_to(view)]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        skipped = [f"callbacks.{part.name}" for part in self.parts if part not in self.active]
        if skipped and trainer.is_global_zero:
            model = type(EvalView(trainer, pl_module).model.recurrence).__name__
            log.info("%s: not applicable to %s: skipped", ", ".join(skipped), model)
        for part in self.active if trainer.global_step == 0 else []:  # a resumed run has had it
            if part.every_n_steps is None:
                self._moment(part, trainer, pl_module, part.draws_at_start)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        for part in self.active:
            if part.every_n_steps is not None and step % part.every_n_steps == 0 and step != part.drawn_at:
                self._moment(part, trainer, pl_module, True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for part in self.parts:
            part.validations += 1
            if part in self.active and (part.every_n_steps is None or part.measures):
                again = part.draws_at_start and part.validations == 1  # it has drawn just before
                draws = part.every_n_steps is None and part.validations in POWERS_OF_FOUR and not again
                self._moment(part, trainer, pl_module, draws)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if EvalView(trainer, pl_module).split == "train":  # nothing to validate on
            self.on_validation_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for part in self.active:
            if part.drawn_at != trainer.global_step:
                self._moment(part, trainer, pl_module, True)

    def _moment(self, part: Diagnostic, trainer: pl.Trainer, pl_module: Any, draws: bool) -> None:
        view = EvalView(trainer, pl_module)
        with undisturbed(pl_module):
            if part.looked_at != view.step:
                part.looked_at = view.step
                numbers = part.look(view)
                write_scalars(trainer, numbers, view.step)
                step, before = pl_module.measures
                pl_module.measures = view.step, {**(before if step == view.step else {}), **numbers}
            if draws and (take_figures(trainer) or self.save_figures):
                part.drawn_at = view.step
                drawing = type(part).draw is not Diagnostic.draw  # else matplotlib is not imported for it
                with styled() if drawing else contextlib.nullcontext():
                    pictures = {tag: png(figure) for tag, figure in part.draw(view).items()}
                for tag, picture in pictures.items():
                    log_figure(trainer, tag, picture, view.step)
                    if self.save_figures:
                        folder = Path(trainer.default_root_dir) / "figures"
                        folder.mkdir(exist_ok=True)
                        (folder / f"{tag.replace('/', '_')}_{view.step:06d}.png").write_bytes(picture)

    def state_dict(self) -> dict[str, Any]:
        return {part.name: part.state_dict() for part in self.parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them; one enabled since starts anew, a disabled one is dropped."""
        for part in self.parts:
            stored = state_dict.get(part.name, {})
            for key in part.state_dict().keys() & stored.keys():
                setattr(part, key, stored[key])


class ProfilerCallback(Callback):
    """debug=profile: a chrome trace of `steps` steps after the first `warm_up`; fewer in a shorter run."""

    def __init__(self, path: Path, warm_up: int = 10, steps: int = 20) -> None:
        self.path, self.warm_up, self.steps = path, warm_up, steps
        self.profiler: torch.profiler.profile | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        first = min(self.warm_up, max(0, trainer.estimated_stepping_batches - self.steps))
        if self.profiler is None and trainer.global_step == first and trainer.is_global_zero:
            self.profiler = torch.profiler.profile()
            self.profiler.start()
        elif trainer.global_step >= self.warm_up + self.steps:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.profiler is not None and not self.path.exists():
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.path))
            log.info("a trace for ui.perfetto.dev: %s", self.path)
