"""The Lightning module: one window is one batch, and the state is carried from one window to the next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from src.config.schema import Config
from src.data.batching import Window
from src.errors import RunFailure
from src.metrics import Tally
from src.models.language_model import LanguageModel, Outcome, State, detached, exact, moved, window_loss
from src.training.optimizers import Schedule, build_optimizer


class LanguageModule(pl.LightningModule):
    """Truncated backpropagation through time.

    The model stores no state. There is one state per stage (`train`, `val`) here, detached after each window, so a
    validation within an epoch does not disturb training. A window with `starts` begins from a zero state.

    Args:
        run_steps: optimizer steps of the whole run, the horizon of a schedule.
        identity: format, config, vocabulary, corpus, init_from: what makes a checkpoint a model; plain data.
    """

    def __init__(self, model: LanguageModel, config: Config, run_steps: int, identity: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.over_time = config.loss.over_time
        self.optimizer_config = config.optimizer
        self.schedule = Schedule(config.scheduler, run_steps, config.checkpoint.mode)
        self.identity = identity
        self.random_state: Mapping[str, Any] | None = None  # of a checkpoint, until the first batch restores it
        self.states: dict[str, State] = {"train": None, "val": None}
        self.characters: Tensor | int = 0  # predicted in training so far, by all processes
        self.nats: Tensor | float = 0.0  # their cross-entropies so far, of this process
        self.val_tally = Tally()
        self.outcome: Outcome | None = None
        self.val_outcome: Outcome | None = None
        self.recent_norms: deque[tuple[int, Tensor]] = deque(maxlen=5)
        self.grad_norm: Tensor | None = None  # of the last step, before clipping; None if it was not computed
        self.clipped_steps: Tensor | float = 0.0  # since the scalar logger reset it
        self.norm_wanted = False  # set by the scalar logger on the steps that it writes

    # -- training -----------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Window, batch_idx: int) -> None:
        """Set the learning rate of the step; after a resume also the generators: nothing else draws from here on."""
        if self.random_state is not None:
            set_random_state(self.random_state)
            self.random_state = None
        factor = self.schedule.factor(self.trainer.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.optimizer_config.lr * factor

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        """Run a window from the state that the window before it left."""
        logits, state = self.model(batch.inputs, None if batch.starts else self.states["train"])
        self.states["train"] = detached(state)
        loss = window_loss(logits, batch.targets, self.over_time, self.trainer.world_size)
        self.outcome = Outcome(batch.targets, loss.logits, loss)
        self._check_finite("the loss", loss.minimised.detach(), own=True)
        self.characters = self.characters + loss.everywhere
        self.nats = self.nats + exact(loss.nats)
        return loss.minimised

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip, and keep the norm from before, which clipping by norm computes anyway."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        clips_norm = gradient_clip_val is not None and gradient_clip_algorithm == "norm"
        wanted = clips_norm or self.norm_wanted or self.device.type == "cpu"  # there always, to explain a nan
        self.grad_norm = torch.nn.utils.get_total_norm(gradients) if wanted else None
        if self.grad_norm is not None:
            self.recent_norms.append((self.trainer.global_step, self.grad_norm))
            self._check_finite("the gradient's norm", self.grad_norm)
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

    def _check_finite(self, what: str, value: Tensor, own: bool = False) -> None:
        """Raise RunFailure for a nan or an inf; on a GPU only on steps that are written, for reading it waits.

        If each process has a value of its own, their sum is checked: all fail, or none.
        """
        if not self.norm_wanted and value.device.type != "cpu":
            return
        if own and self.trainer.world_size > 1:
            torch.distributed.all_reduce(value := value.clone())
        if not math.isfinite(value.item()):
            raise RunFailure(self._explain(f"{what} is {value.item()}"))

    def _explain(self, what: str) -> str:
        """Return the message of a run that came to a nan or an inf; its weights are still finite."""
        kept = (Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt").exists()
        before = ", ".join(f"{float(norm):.3g} at step {step}" for step, norm in self.recent_norms)
        return (
            f"{what} at step {self.trainer.global_step}; "
            f"{'the last sound checkpoint is kept' if kept else 'no checkpoint was written yet'}."
            + (f" Gradient norms before clipping: {before}." if before else "")
            + worst_gradient(self.model)
            + " Try a smaller optimizer.lr, trainer.gradient_clip_val=1 or model.init=orthogonal."
        )

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer(self.parameters(), self.optimizer_config)

    # -- validation ---------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.states["val"] = None
        self.val_tally = Tally()

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        """Count a window's nats and correct predictions, the state carried from the window before it."""
        logits, state = self.model(batch.inputs, None if batch.starts else self.states["val"])
        self.states["val"] = detached(state)
        loss = window_loss(logits, batch.targets, "mean")
        self.val_outcome = Outcome(batch.targets, logits, loss)
        hits = self.val_outcome.hits()
        self.val_tally.add(float(exact(loss.losses).sum()), float(hits), int(loss.characters))

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file a model, and what makes a resume exact: plain data, gathered from all processes."""
        own = {
            "states": {stage: moved(state, torch.device("cpu")) for stage, state in self.states.items()},
            "characters": int(self.characters),
            "nats": float(self.nats),
            "clipped_steps": float(self.clipped_steps),
            "random": random_state(),
        }
        ranks = [own]
        if self.trainer.world_size > 1:
            ranks = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, own)
        progress = {"ranks": ranks, "schedule": self.schedule.state_dict(), "threads": torch.get_num_threads()}
        checkpoint["unroll"] = {**self.identity, "progress": progress}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["unroll"]["progress"]
        own, device = progress["ranks"][self.trainer.global_rank], self.trainer.strategy.root_device
        self.states = {stage: moved(state, device) for stage, state in own["states"].items()}
        self.characters, self.nats, self.clipped_steps = own["characters"], own["nats"], own["clipped_steps"]
        self.random_state = own["random"]
        self.schedule.load_state_dict(progress["schedule"])


def worst_gradient(model: nn.Module) -> str:
    """Return a sentence on the parameter with the largest (or first non-finite) gradient, if there are gradients."""
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None}
    if not norms:
        return ""
    name = max(norms, key=lambda name: norms[name] if math.isfinite(norms[name]) else math.inf)
    layer = next((int(part) for part in name.replace("_l", ".").split(".") if part.isdecimal()), None)
    shown = name if layer is None else f"layer {layer + 1} ({name})"
    return f" Worst in the last backward pass: {shown}, {norms[name]:.3g}."


def random_state() -> dict[str, Any]:
    """Return the state of torch's global generators (dropout draws from them)."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore it."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
