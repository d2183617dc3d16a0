"""A loss or a gradient that is no number stops the run before it reaches the weights, and says what led there."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from src.data.batching import Window
from src.errors import RunFailure
from src.metrics import Tally
from src.models.language_model import LanguageModel, State, detached, moved
from src.models.loss import Outcome, exact, window_loss
from src.training.checkpoint import random_state, set_random_state
from src.training.lightning_compat import signed
from src.training.optimizers import Schedule, build_optimizer


def failure(what: str, step: int, norms: Iterable[tuple[int, Tensor]], model: nn.Module, kept: bool) -> RunFailure:
    """Return the error that ends the run.

    Args:
        what: `the loss is nan`.
        step: the optimizer step that is not made.
        norms: (step, gradient norm before clipping) of the steps before, oldest first.
        model: with the gradients of the last backward pass.
        kept: whether the run has written a checkpoint.
    """
    before = ", ".join(f"{float(norm):.3g} at step {at}" for at, norm in norms)
    worst = worst_gradient(model)
    return RunFailure(
        f"{what} at step {step}; {'the last sound checkpoint is kept' if kept else 'no checkpoint was written yet'}."
        + (f" Gradient norms before clipping: {before}." if before else "")
        + (f" Worst in the last backward pass: {worst[0]}, {worst[1]:.3g}." if worst else "")
        + " Try a smaller optimizer.lr, trainer.gradient_clip_val=1 or model.init=orthogonal."
    )


def worst_gradient(model: nn.Module) -> tuple[str, float] | None:
    """Return the parameter with the largest (or first non-finite) gradient, its layer in words, and the norm."""
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None}
    if not norms:
        return None
    broken = [name for name, norm in norms.items() if norm != norm or norm == float("inf")]
    name = broken[0] if broken else max(norms, key=norms.__getitem__)
    return layer_name(name), norms[name]


def layer_name(parameter: str) -> str:
    """Return a parameter's name with its layer in words: `recurrence.rnn.weight_hh_l1` -> `layer 2 (...)`."""
    parts = parameter.replace("_l", ".").split(".")
    number = next((int(part) for part in parts if part.isdecimal()), None)
    return f"layer {number + 1} ({parameter})" if number is not None else parameter


# ---- The Lightning module: one window is one batch is one optimizer step, and the state between windows is ...


class LanguageModule(pl.LightningModule):
    """Truncated backpropagation through time.

    The model stores no state. There is one state a stage here, detached after each window, so that a validation in
    mid-epoch cannot disturb training. It starts from zeros where the window says so (`window.starts`).

    Args:
        model: ids in, logits out.
        over_time: `sum` or `mean`; see `window_loss`.
        optimizer, scheduler: those groups of conf/.
        run_steps: optimizer steps of the whole run, the horizon of a schedule.
        mode: whether the metric that scheduler=plateau is told (`History` does) is better as `min` or as `max`.
    """

    def __init__(
        self,
        model: LanguageModel,
        over_time: str,
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        run_steps: int,
        mode: str = "min",
    ) -> None:
        super().__init__()
        self.model = model
        self.over_time = over_time
        self.optimizer_words = optimizer
        self.schedule = Schedule(scheduler, run_steps, mode)
        self.identity: dict[str, Any] = {}  # format, config, vocabulary: what makes a checkpoint a model
        self.random_state: Mapping[str, Any] | None = None  # of a checkpoint, until the first batch takes it
        self.states: dict[str, State] = {"train": None, "val": None}
        self.characters: Tensor | int = 0  # predicted in training so far, by all processes
        self.nats: Tensor | float = 0.0  # what this process's own cost; a mean takes differences, of nats over all
        self.val_tally = Tally()
        self.outcome: Outcome | None = None
        self.val_outcome: Outcome | None = None
        self.recent_norms: deque[tuple[int, Tensor]] = deque(maxlen=5)
        self.grad_norm: Tensor | None = None  # of the last step, before clipping; None where nobody asked
        self.clipped_steps: Tensor | float = 0.0  # since whoever logs it took it
        self.norm_wanted = False

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; one that is plain data already skips torch's search for parameters, buffers and modules.

        Lightning sets an attribute around each of its hooks, some forty times a step: a twentieth of a small step.
        """
        if name in self.__dict__ and not isinstance(value, torch.nn.Module):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # -- training -----------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Window, batch_idx: int) -> None:
        """Set the learning rate of the step to come; after a resume the generators too, now that nothing else draws."""
        if self.random_state is not None:
            set_random_state(self.random_state)
            self.random_state = None
        factor = self.schedule.factor(self.trainer.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.optimizer_words["lr"] * factor

    @signed
    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        """Run a window from the state that the window before it left behind."""
        logits, state = self.model(batch.inputs, None if batch.starts else self.states["train"])
        self.states["train"] = detached(state)
        loss = window_loss(logits, batch.targets, self.over_time, self.trainer.world_size)
        self.outcome = Outcome(batch.targets, loss.logits, loss)
        self._must_be_finite("the loss", loss.minimised.detach(), own=True)
        self.characters = self.characters + loss.everywhere
        self.nats = self.nats + exact(loss.nats)
        return loss.minimised

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip, and keep the norm from before: clipping by norm computes it anyway."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        clips_norm = gradient_clip_val is not None and gradient_clip_algorithm == "norm"
        wanted = clips_norm or self.norm_wanted or self.device.type == "cpu"  # there it tells what led to a nan
        self.grad_norm = torch.nn.utils.get_total_norm(gradients) if wanted else None
        if self.grad_norm is not None:
            self.recent_norms.append((self.trainer.global_step, self.grad_norm))
            self._must_be_finite("the gradient's norm", self.grad_norm)
        if gradient_clip_val is None:
            return
        if clips_norm:
            assert self.grad_norm is not None
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, self.grad_norm)
            self.clipped_steps = self.clipped_steps + (self.grad_norm > gradient_clip_val)
        else:
            clipped = torch.stack([gradient.abs().max() > gradient_clip_val for gradient in gradients])
            self.clipped_steps = self.clipped_steps + clipped.any()
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)

    def _must_be_finite(self, what: str, value: Tensor, own: bool = False) -> None:
        """Raise RunFailure for a nan or an inf; on a GPU only where a point is written, since a look waits for it.

        A value that each of several processes has its own of is looked at as their sum: all fail, or none.
        """
        if not self.norm_wanted and value.device.type != "cpu":
            return
        if own and self.trainer.world_size > 1:
            torch.distributed.all_reduce(value := value.clone())
        if not math.isfinite(value.item()):
            step, folder = self.trainer.global_step, Path(self.trainer.default_root_dir)
            kept = (folder / "checkpoints" / "last.ckpt").exists()
            raise failure(f"{what} is {value.item()}", step, self.recent_norms, self.model, kept)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Lightning asks for the optimizer; the rate is ours to move (`on_train_batch_start`)."""
        return build_optimizer(self.parameters(), self.optimizer_words)

    # -- validation ---------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Each validation reads its text from the first character."""
        self.states["val"] = None
        self.val_tally = Tally()

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        """Count a window's nats and hits, the state carried from the window before it."""
        logits, state = self.model(batch.inputs, None if batch.starts else self.states["val"])
        self.states["val"] = detached(state)
        loss = window_loss(logits, batch.targets, "mean")
        self.val_outcome = Outcome(batch.targets, logits, loss)
        hits = self.val_outcome.hits()
        self.val_tally.add(float(exact(loss.losses).sum()), float(hits), int(loss.characters))

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file a model, and what makes a resume exact; plain data only. Every process takes part."""
        mine = {
            "states": {stage: moved(state, torch.device("cpu")) for stage, state in self.states.items()},
            "characters": int(self.characters),
            "nats": float(self.nats),
            "clipped_steps": float(self.clipped_steps),
            "random": random_state(),
        }
        ranks = [mine]
        if self.trainer.world_size > 1:
            ranks = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, mine)
        progress = {"ranks": ranks, "schedule": self.schedule.state_dict(), "threads": torch.get_num_threads()}
        checkpoint["unroll"] = {**self.identity, "progress": progress}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the progress back; each process its own."""
        progress = checkpoint["unroll"]["progress"]
        mine = progress["ranks"][self.trainer.global_rank]
        self.states = {
            stage: moved(state, self.trainer.strategy.root_device) for stage, state in mine["states"].items()
        }
        self.characters, self.nats, self.clipped_steps = mine["characters"], mine["nats"], mine["clipped_steps"]
        self.random_state = mine["random"]
        self.schedule.load_state_dict(progress["schedule"])
