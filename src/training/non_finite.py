"""A loss or a gradient that is no number stops the run before it reaches the weights, and says what led there."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from src.mistakes import Failure


def failure(what: str, step: int, norms: Iterable[tuple[int, Tensor]], model: nn.Module, kept: bool) -> Failure:
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
    return Failure(
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
