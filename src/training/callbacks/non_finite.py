"""A loss that is no number stops the run before it spoils the weights, and says what led there."""

from __future__ import annotations

from collections import deque
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from src.mistakes import Failure
from src.training.module import LanguageModule


class StopOnNonFinite(Callback):
    """Look at each loss before its backward pass (on a GPU only where a point is written: a look waits for the device).

    Args:
        remember: how many gradient norms before the end are told.
    """

    def __init__(self, remember: int = 5) -> None:
        self.norms: deque[tuple[int, Tensor]] = deque(maxlen=remember)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Raise Failure where the loss is no number; the weights are still those of the step before."""
        assert isinstance(pl_module, LanguageModule)
        if (pl_module.norm_wanted or loss.device.type == "cpu") and not torch.isfinite(loss):
            raise Failure(self._what_led_there(f"the loss is {float(loss)}", trainer.global_step, pl_module))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Remember the norm of the step, where it is known anyway."""
        assert isinstance(pl_module, LanguageModule)
        if pl_module.grad_norm is not None:
            self.norms.append((trainer.global_step - 1, pl_module.grad_norm))

    def _what_led_there(self, what: str, step: int, module: LanguageModule) -> str:
        norms = ", ".join(f"{float(norm):.3g} at step {at}" for at, norm in self.norms)
        worst = worst_gradient(module.model)
        return (
            f"{what} at step {step}; the last sound checkpoint is kept."
            + (f" Gradient norms before (unclipped): {norms}." if norms else "")
            + (f" Largest in the last step: {worst[0]}, {worst[1]:.3g}." if worst else "")
            + " Try a smaller optimizer.lr, trainer.gradient_clip_val=1, or model.init=orthogonal."
        )


def worst_gradient(model: nn.Module) -> tuple[str, float] | None:
    """Return the layer and parameter with the largest (or first non-finite) gradient, and its norm; None without any."""
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
