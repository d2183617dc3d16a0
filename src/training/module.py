"""The Lightning module: one window is one batch, the state is carried from one window to the next; the optimizer."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from src.config.schema import Config, OptimizerConfig, SchedulerConfig
from src.data.batching import Window
from src.errors import RunFailure
from src.metrics import Tally
from src.models.language_model import (
    LanguageModel,
    State,
    WindowLoss,
    change_parts,
    detached,
    exact,
    sequences_right,
    window_loss,
)

OPTIMIZERS = {kind.__name__.lower(): kind for kind in (Adam, AdamW, SGD, RMSprop)}


class LanguageModule(pl.LightningModule):
    """Truncated backpropagation through time: one state per stage (`train`, `val`), detached after each window.

    `run_steps` are the optimizer steps of the whole run, the horizon of a schedule; `identity` (format, config,
    vocabulary, corpus, init_from) is what makes a checkpoint a model: plain data.
    """

    def __init__(self, model: LanguageModel, config: Config, run_steps: int, identity: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.over_time, self.averages_last_group = config.loss.over_time, config.trainer.average_last_group
        self.optimizer_config = config.optimizer
        self.schedule = Schedule(config.scheduler, run_steps)
        self.identity = identity
        self.random_state: Mapping[str, Any] | None = None  # of a checkpoint, until the first batch restores it
        self.states: dict[str, State] = {"train": None, "val": None}
        self.characters: Tensor | int = 0  # predicted in training so far, by all processes
        self.nats: Tensor | float = 0.0  # their cross-entropies so far, of this process
        self.val_tally = Tally()
        self.outcome: WindowLoss | None = None
        self.measures: dict[str, float] = {}  # of the diagnostics, for the lines of metrics.jsonl
        self.recent_norms: deque[tuple[int, Tensor]] = deque(maxlen=5)
        self.grad_norm: Tensor | None = None  # of the last step, before clipping; None if it was not computed
        self.clipped_steps: Tensor | float = 0.0  # since the scalar logger reset it
        self.norm_wanted = False  # set by the scalar logger on the steps that it writes

    def on_train_batch_start(self, batch: Window, batch_idx: int) -> None:
        """Set the learning rate of the step; after a resume also the generators: nothing else draws from here on."""
        if self.random_state is not None:
            torch.set_rng_state(self.random_state["cpu"])
            if "cuda" in self.random_state and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(self.random_state["cuda"])
            self.random_state = None
        factor = self.schedule.factor(self.trainer.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.optimizer_config.lr * factor

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        logits, state = self.model(batch.inputs, None if batch.starts else self.states["train"])
        self.states["train"] = detached(state)
        self.outcome = loss = window_loss(logits, batch.targets, self.over_time, self.trainer.world_size)
        self._check_finite("the loss", loss.minimised.detach(), own=True)
        self.characters = self.characters + loss.everywhere
        self.nats = self.nats + exact(loss.nats)
        return loss.minimised * self._share(batch_idx) if self.averages_last_group else loss.minimised

    def _share(self, batch_idx: int) -> float:
        """Return the factor that makes the last accumulated group of an epoch a mean: Lightning divides it by k too."""
        k, windows = self.trainer.accumulate_grad_batches, int(self.trainer.num_training_batches)
        last = windows % k
        return k / last if batch_idx >= windows - last else 1.0

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
        if clips_norm:
            assert gradient_clip_val is not None and self.grad_norm is not None
            self.clipped_steps = self.clipped_steps + (self.grad_norm > gradient_clip_val)
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, self.grad_norm)
        elif gradient_clip_val is not None:
            largest = torch.stack([gradient.abs().max() for gradient in gradients]).max()
            self.clipped_steps = self.clipped_steps + (largest > gradient_clip_val)
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)

    def _check_finite(self, what: str, value: Tensor, own: bool = False) -> None:
        """Raise RunFailure for a nan or an inf in any process; on a GPU, where reading waits, only on written steps."""
        if not self.norm_wanted and value.device.type != "cpu":
            return
        if own and self.trainer.world_size > 1:
            torch.distributed.all_reduce(value := value.clone())
        if not math.isfinite(value.item()):
            kept = (Path(self.trainer.default_root_dir) / "checkpoints" / "last.ckpt").exists()
            saved = "the last checkpoint is from before it." if kept else "no checkpoint was written yet."
            norms = ", ".join(f"{float(norm):.3g} at step {step}" for step, norm in self.recent_norms)
            before = f" Gradient norms before clipping: {norms}." if norms else ""
            remedy = "Try a smaller optimizer.lr, trainer.gradient_clip_val=1 or model.init=orthogonal."
            raise RunFailure(f"{what} is {value.item()} at step {self.trainer.global_step}; {saved}{before} {remedy}")

    def configure_optimizers(self) -> Optimizer:
        return build_optimizer(self.parameters(), self.optimizer_config)

    def on_validation_epoch_start(self) -> None:
        self.states["val"] = None
        self.val_tally = Tally()

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        logits, state = self.model(batch.inputs, None if batch.starts else self.states["val"])
        self.states["val"] = detached(state)
        loss = window_loss(logits, batch.targets, "mean")
        self.val_tally.add(float(exact(loss.losses).sum()), float(loss.hits()), int(loss.characters))
        if batch.allowed is not None:
            self.val_tally.add_sequences(*sequences_right(logits, batch.allowed))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file a model, and what makes a resume exact: plain data, gathered from all processes."""
        random: dict[str, Any] = {"cpu": torch.get_rng_state()}  # dropout draws from torch's global generators
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state_all()
        random = dict(self.random_state or random)  # no batch since a resume has restored it: that of its checkpoint
        own: dict[str, Any] = {"characters": int(self.characters), "nats": float(self.nats), "random": random}
        own["clipped_steps"] = float(self.clipped_steps)
        own["states"] = {stage: change_parts(state, Tensor.cpu) for stage, state in self.states.items()}
        ranks = [own]
        if self.trainer.world_size > 1:
            ranks = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, own)
        progress = {"ranks": ranks, "schedule": self.schedule.state_dict(), "threads": torch.get_num_threads()}
        checkpoint["unroll"] = {**self.identity, "progress": progress}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["unroll"]["progress"]
        own, device = progress["ranks"][self.trainer.global_rank], self.trainer.strategy.root_device
        self.states = {stage: change_parts(state, lambda h: h.to(device)) for stage, state in own["states"].items()}
        self.characters, self.nats, self.clipped_steps = own["characters"], own["nats"], own["clipped_steps"]
        self.random_state = own["random"]
        self.schedule.load_state_dict(progress["schedule"])


def build_optimizer(parameters: Iterable[Parameter], config: OptimizerConfig) -> Optimizer:
    """Build one of torch's optimizers with the keys of the configuration that are not None."""
    keys = dataclasses.asdict(config)
    given = {key: value for key, value in keys.items() if key not in ("name", "decay") and value is not None}
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    trained = [p for p in parameters if p.requires_grad]
    if config.name != "rmsprop" and all(p.device.type == "cpu" for p in trained):
        given["fused"] = True  # one pass over the weights instead of ten: a fourth of the time
    if config.decay != "matrices":
        return OPTIMIZERS[config.name](trained, **given)
    groups: list[dict[str, Any]] = [{"params": [p for p in trained if p.ndim > 1]}]
    groups.append({"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0})
    return OPTIMIZERS[config.name](groups, **given)


class Schedule:
    """The factor on the learning rate at an optimizer step.

    warm-up   (s + 1) / warmup_steps             while s < warmup_steps; times one of the following
    none      1
    cosine    f + (1 - f) (1 + cos(pi s / S)) / 2    f = final_fraction, S = total_steps, else run_steps; f after S
    step      gamma ^ floor(s / step_size)
    plateau   factor ^ (times that the monitored metric did not improve for more than `patience` validations)
    """

    def __init__(self, config: SchedulerConfig, run_steps: int) -> None:
        self.config = config
        self.total_steps = max(1, config.total_steps or run_steps)
        self.best = math.inf
        self.bad_validations = 0
        self.reductions = 0

    def factor(self, step: int) -> float:
        """Return the factor for the update that optimizer step `step` (from 0) makes."""
        config, after = self.config, 1.0
        ramp = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        if config.name == "cosine":
            final, done = config.final_fraction, min(1.0, step / self.total_steps)
            after = final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
        elif config.name == "step":
            after = config.gamma ** (step // config.step_size)
        elif config.name == "plateau":
            after = config.factor**self.reductions
        return ramp * after

    def after_validation(self, metric: float) -> None:
        """Count a validation; plateau lowers the rate after more than `patience` of them without a lower metric."""
        if metric < self.best:
            self.best, self.bad_validations = metric, 0
            return
        self.bad_validations += 1
        if self.bad_validations > self.config.patience:
            self.reductions, self.bad_validations = self.reductions + 1, 0

    def state_dict(self) -> dict[str, float]:
        return {key: getattr(self, key) for key in ("total_steps", "best", "bad_validations", "reductions")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it; the horizon too, so that extending a run does not change its schedule."""
        for key, value in state.items():
            setattr(self, key, value)
