"""The Lightning module, with the state carried from window to window, its windows, and the optimizer.

On a GPU nothing between two written steps waits for it: windows are copied from pinned memory while it works, sums stay
on it, and a nan is looked for where numbers are read anyway.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.config.checks import graph_refusal
from src.config.schema import Config, DataConfig, OptimizerConfig, SchedulerConfig
from src.data.batching import TextSplit, Window, Windows, evaluation_windows
from src.data.corpus import Corpus
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

if TYPE_CHECKING:
    from src.training.step_graph import StepGraph

OPTIMIZERS = {kind.__name__.lower(): kind for kind in (Adam, AdamW, SGD, RMSprop)}


class LanguageModule(pl.LightningModule):
    """Truncated backpropagation through time: one state per stage (`train`, `val`), detached after each window.

    `run_steps` are the optimizer steps of the whole run, the horizon of a schedule; `identity` (format, config,
    vocabulary, corpus, init_from) is what makes a checkpoint a model: plain data.
    """

    def __init__(self, model: LanguageModel, config: Config, run_steps: int, identity: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.schedule = Schedule(config.scheduler, run_steps)
        self.averaged: AveragedModel | None = None  # if set, what is validated, stored and looked at
        if decay := config.optimizer.average:
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)).requires_grad_(False)
        self.identity = identity
        self.random_state: Mapping[str, Any] | None = None  # of a checkpoint, until the first batch restores it
        self.states: dict[str, State] = {"train": None, "val": None}
        self.characters: Tensor | int = 0  # predicted in training so far, by all processes
        self.nats: Tensor | float = 0.0  # their cross-entropies so far, of this process
        self.val_tally = Tally()
        self.val_sums: Tensor | None = None  # nats, hits, characters of the validation so far, on the device
        self.graph: StepGraph | None = None
        self.window: Window | None = None  # of this step, if it is launched as a graph
        self.outcome: WindowLoss | None = None
        self.measures: tuple[int, dict[str, float]] = (-1, {})  # a step, and what the diagnostics measured at it
        self.recent_norms: deque[tuple[int, Tensor]] = deque(maxlen=5)
        self.grad_norm: Tensor | None = None  # of the last step, before clipping; None if it was not computed
        self.clipped_steps: Tensor | float = 0.0  # since the scalar logger reset it
        self.norm_wanted = False  # set by the scalar logger on the steps that it writes

    def on_train_start(self) -> None:
        self.graph = self.step_graph()

    def step_graph(self) -> StepGraph | None:
        """Return the graph of the run's steps, or None: on other devices than a GPU, or if something refuses it."""
        asked = self.config.trainer.cuda_graph
        if self.device.type != "cuda" or asked is False or self.trainer.world_size > 1 or graph_refusal(self.config):
            return None
        from src.training.step_graph import StepGraph  # imported on a GPU only

        return StepGraph(self, demanded=asked is True)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler of 16-mixed."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def reading_waits(self) -> bool:
        """Whether reading a number waits for the device: not on a CPU."""
        return self.device.type != "cpu"

    def on_train_batch_start(self, batch: Window, batch_idx: int) -> None:
        """Set the learning rate of the step; after a resume also the generators: nothing else draws from here on."""
        if self.random_state is not None:
            torch.set_rng_state(self.random_state["cpu"])
            if "cuda" in self.random_state:  # the run may have had more or fewer GPUs in sight than are here
                torch.cuda.set_rng_state_all(self.random_state["cuda"][: torch.cuda.device_count()])
            self.random_state = None
        first = batch_idx % self.trainer.accumulate_grad_batches == 0  # of a step
        if self.averaged is not None and first:  # not after the step: a checkpoint may have been written between
            self.averaged.update_parameters(self.model)
        factor = self.schedule.factor(self.trainer.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            lr = factor * rate_of(group, self.config.optimizer)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)  # in place: a CUDA graph reads it
            else:
                group["lr"] = lr
        self.window = batch if self.graph is not None and self.graph.takes(batch) else None

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        if self.window is not None and self.outcome is not None:  # the graph has made the step
            return self.outcome.minimised
        loss, self.states["train"] = self.window_loss(batch, None if batch.starts else self.states["train"])
        self.count_window(loss)
        return loss.minimised * self._share(batch_idx) if self.config.trainer.average_last_group else loss.minimised

    def window_loss(self, batch: Window, state: State) -> tuple[WindowLoss, State]:
        """Return the losses of a window of training from a state, and the state after it."""
        logits, state = self.model(batch.inputs, state)
        return window_loss(logits, batch.targets, self.config.loss.over_time, self.trainer.world_size), detached(state)

    def count_window(self, loss: WindowLoss) -> None:
        """Keep what a step has computed, and add it to the sums of the run."""
        self.outcome = loss
        self._check_finite("the loss", loss.minimised.detach(), own=True)
        self.characters = self.characters + loss.everywhere
        self.nats = self.nats + exact(loss.nats)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Make a step: as a CUDA graph, or as Lightning does; the closure is training_step, zero_grad and backward."""
        if self.window is not None and self.graph is not None:
            if self.graph.step(self.window):
                if optimizer_closure is not None:  # Lightning asks for its result; see the two methods below
                    optimizer_closure()
                return
            self.window = None
        with self.graph.stream() if self.graph is not None else contextlib.nullcontext():
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        if self.window is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if self.window is None:
            super().backward(loss, *args, **kwargs)

    def _share(self, batch_idx: int) -> float:
        """Return the factor that makes the last accumulated group of an epoch a mean: Lightning divides it by k too."""
        k, windows = self.trainer.accumulate_grad_batches, int(self.trainer.num_training_batches)
        last = windows % k
        return k / last if batch_idx >= windows - last else 1.0

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradients, and keep their norm before clipping, which clipping by norm computes anyway."""
        wanted = self.norm_wanted or not self.reading_waits()  # on a CPU always, to explain a nan
        self.count_step(*self.clip(gradient_clip_val, gradient_clip_algorithm, wanted))

    def clip(self, at: float | None, algorithm: str | None, wanted: bool) -> tuple[Tensor | None, Tensor | None]:
        """Clip the gradients; return their norm from before (None: not needed nor `wanted`), and whether it clipped."""
        optimizer, scaler = self.trainer.optimizers[0], self.scaler
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if scaler is not None and optimizer.param_groups[0].get("fused"):  # to others Lightning has done it
            scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm(gradients) if wanted or (at is not None and algorithm == "norm") else None
        if at is None:
            return norm, None
        if algorithm == "norm":
            assert norm is not None
            torch.nn.utils.clip_grads_with_norm_(parameters, at, norm)
            return norm, norm > at
        largest = torch.stack([gradient.abs().max() for gradient in gradients]).max()
        torch.nn.utils.clip_grad_value_(parameters, at)
        return norm, largest > at

    def count_step(self, norm: Tensor | None, clipped: Tensor | None) -> None:
        """Keep the norm of a step's gradient, and count it if it was clipped."""
        self.grad_norm = norm
        if norm is not None:
            self.recent_norms.append((self.trainer.global_step, norm))
            if self.scaler is None:  # which skips a step whose scaled gradient overflows, and lowers the scale
                self._check_finite("the gradient's norm", norm)
        if clipped is not None:
            self.clipped_steps = self.clipped_steps + clipped

    def _check_finite(self, what: str, value: Tensor, own: bool = False) -> None:
        """Raise RunFailure for a nan or an inf in any process; on a GPU, where reading waits, only on written steps."""
        if not self.norm_wanted and self.reading_waits():
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
        return build_optimizer(self, self.config.optimizer)

    def on_validation_epoch_start(self) -> None:
        self.states["val"] = None
        self.val_tally, self.val_sums = Tally(), None

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        model = self.model if self.averaged is None else self.averaged
        logits, state = model(batch.inputs, None if batch.starts else self.states["val"])
        self.states["val"] = detached(state)
        loss = window_loss(logits, batch.targets, "mean")
        nats = exact(loss.losses).sum()
        sums = torch.stack([nats, loss.hits().to(nats), loss.characters.to(nats)])
        self.val_sums = sums if self.val_sums is None else self.val_sums + sums
        if batch.allowed is not None:
            self.val_tally.add_sequences(*sequences_right(logits, batch.allowed))

    def on_validation_epoch_end(self) -> None:
        if self.val_sums is not None:
            nats, hits, characters = self.val_sums.tolist()
            self.val_tally.add(nats, hits, int(characters))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file a model, and what makes a resume exact: plain data, gathered from all processes."""
        random: dict[str, Any] = {"cpu": torch.get_rng_state()}  # dropout draws from torch's global generators
        if self.device.type == "cuda":  # elsewhere asking would begin to use a GPU
            random["cuda"] = torch.cuda.get_rng_state_all()
        random = dict(self.random_state or random)  # not restored yet: still that of the checkpoint
        own: dict[str, Any] = {"characters": int(self.characters), "nats": float(self.nats), "random": random}
        own["clipped_steps"] = float(self.clipped_steps)
        own["states"] = {stage: change_parts(state, Tensor.cpu) for stage, state in self.states.items()}
        ranks = [own]
        if self.trainer.world_size > 1:
            ranks = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, own)
        for group in (group for state in checkpoint["optimizer_states"] for group in state["param_groups"]):
            group["lr"] = float(group["lr"])  # as on any other device
        progress = {"ranks": ranks, "schedule": self.schedule.state_dict(), "threads": torch.get_num_threads()}
        checkpoint["state_dict"] = self.exchanged(checkpoint["state_dict"])
        checkpoint["unroll"] = {**self.identity, "progress": progress}

    def exchanged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a state dict in which averaged and trained weights, if there are two, have each other's names.

        A checkpoint has the average as the model, and what was trained beside it.
        """
        trained = self.model.state_dict() if self.averaged is not None else ()
        names = {f"model.{name}": f"averaged.module.{name}" for name in trained}
        names |= {there: here for here, there in names.items()}
        return {names.get(name, name): weight for name, weight in weights.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["unroll"]["progress"]
        own, device = progress["ranks"][self.trainer.global_rank], self.trainer.strategy.root_device
        self.states = {stage: change_parts(state, lambda h: h.to(device)) for stage, state in own["states"].items()}
        self.characters, self.nats, self.clipped_steps = own["characters"], own["nats"], own["clipped_steps"]
        self.random_state = own["random"]
        checkpoint["state_dict"] = self.exchanged(checkpoint["state_dict"])
        self.schedule.load_state_dict(progress["schedule"])
        for group in (group for state in checkpoint["optimizer_states"] for group in state["param_groups"]):
            group |= optimizer_form(self.config.optimizer.name, device, group["lr"])  # the run may come from another


class TextData(pl.LightningDataModule):
    """The windows of `train` as the configuration says, of `val` in streams; `limit`: windows an epoch, if not all."""

    def __init__(self, corpus: Corpus, config: DataConfig, seed: int, limit: int | None = None) -> None:
        super().__init__()
        self.corpus, self.config, self.seed, self.limit = corpus, config, seed, limit
        self.loader: Windows | None = None
        self.position: dict[str, Any] | None = None  # the state of a loader that a checkpoint has stored

    def windows(self, rank: int = 0, world_size: int = 1) -> Windows:
        train, config = self.corpus.splits["train"], self.config
        how: dict[str, Any] = {"offset": config.offset, "reset": config.reset, "noise": config.noise or 0.0}
        how |= {"seed": self.seed, "limit": self.limit}
        return Windows(train, *config.window, rank=rank, world_size=world_size, **how)

    def val_windows(self, warms: bool = True) -> Windows | None:
        """Return the windows of a validation, or without a warm-up at least two whole ones; None without val."""
        val, config = self.corpus.splits.get("val"), self.config
        seq_len, streams, warmup = config.window[0], config.evaluation_streams, config.evaluation_warmup
        if not warms and type(val) is TextSplit:
            streams, warmup = min(streams, max(1, val.transitions // (2 * seq_len))), warmup and 0
        return None if val is None else evaluation_windows(val, seq_len, streams, warmup)

    def described(self) -> dict[str, dict[str, int]]:
        """Return for the run's record the streams of all processes, and what an epoch without a limit scores."""
        splits = {"train": self.windows(), "val": self.val_windows()}
        keys = ("streams", "scored", "dropped")
        return {name: {key: getattr(part, key) for key in keys} for name, part in splits.items() if part is not None}

    def train_dataloader(self) -> Windows:
        assert self.trainer is not None
        self.loader = self.windows(self.trainer.global_rank, self.trainer.world_size)
        if self.position is not None:
            self.loader.load_state_dict(self.position)
        return self.loader

    def val_dataloader(self) -> Windows | list[Windows]:
        return self.val_windows() or []

    def transfer_batch_to_device(self, batch: Window, device: torch.device, dataloader_idx: int) -> Window:
        """Copy a window; to a GPU from pinned memory, without waiting for what the GPU does."""

        def moved(ids: torch.Tensor) -> torch.Tensor:
            return ids.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else ids.to(device)

        allowed = None if batch.allowed is None else moved(batch.allowed)
        return batch._replace(inputs=moved(batch.inputs), targets=moved(batch.targets), allowed=allowed)

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's position. Lightning restores it in mid-epoch only, and would lose the epoch's number."""
        return self.loader.state_dict() if self.loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = state_dict or None


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Build one of torch's optimizers with the keys of the configuration that are not None.

    The weights are in groups by their learning rate and weight decay; the first group has the rate `lr`.
    """
    apart = ("name", "decay", "average", "recurrent_lr")
    given = {key: value for key, value in vars(config).items() if key not in apart and value is not None}
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    device = trained[0][1].device if trained else torch.device("cpu")
    given |= optimizer_form(config.name, device, config.lr)
    groups: dict[tuple[bool, bool], list[Parameter]] = {}
    for name, p in trained:
        recurrent = config.recurrent_lr is not None and "readout" not in name.split(".")
        groups.setdefault((recurrent, config.decay == "matrices" and p.ndim <= 1), []).append(p)
    listed: list[dict[str, Any]] = []
    for (recurrent, undecayed), parameters in sorted(groups.items(), key=lambda item: item[0]):
        listed.append({"params": parameters, "recurrent": recurrent})
        if undecayed:
            listed[-1]["weight_decay"] = 0.0
        if recurrent:
            listed[-1]["lr"] = optimizer_form(config.name, device, rate_of(listed[-1], config))["lr"]
    return OPTIMIZERS[config.name](listed, **given)


def rate_of(group: Mapping[str, Any], config: OptimizerConfig) -> float:
    """Return the learning rate of a group of an optimizer's weights, before the schedule."""
    if config.recurrent_lr is None or not group.get("recurrent"):  # older checkpoints have no such entry
        return config.lr
    return config.recurrent_lr


def optimizer_form(name: str, device: torch.device, lr: float) -> dict[str, Any]:
    """Return how an optimizer computes on a device.

    Fused it makes one pass over the weights instead of ten, and takes a fourth of the time. On a CUDA GPU its learning
    rate is a number there, which a CUDA graph of the step reads.
    """
    fused = name != "rmsprop" and device.type in ("cpu", "cuda")
    on_gpu = fused and device.type == "cuda"
    rate = torch.tensor(float(lr), dtype=torch.float32, device=device) if on_gpu else float(lr)
    return {"lr": rate, **({"fused": True} if fused else {})}


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
