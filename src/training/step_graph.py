"""`trainer.cuda_graph`: a whole training step on a GPU, captured once per window shape and launched as one CUDA graph.

Forward, loss, backward, clipping, optimizer: some hundred kernels of a few microseconds, whose launches from Python
cost more than they compute. A graph launches the same kernels in the same order on the same numbers.

A graph reads and writes fixed memory. So each window is copied into the window of the graph, and the carried state
has its place there too: the end of the step writes the next state into it. Windows of other shapes (the short ones at
the ends of an epoch), the first steps of a run and validations run without a graph.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.data.batching import Window
from src.errors import first_line
from src.inference.incremental import parts_of
from src.models import cuda
from src.models.language_model import State, WindowLoss, change_parts

if TYPE_CHECKING:
    from src.training.module import LanguageModule

MOST_SHAPES = 4  # windows that get a graph; each keeps the memory of a step
log = logging.getLogger(__name__)


@contextlib.contextmanager
def capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the optimizer may be captured. Outside, torch would warn of the flag; a fused one acts the same."""
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False


class Captured:
    """The graph of a step for one shape of window, and its memory."""

    def __init__(self, module: LanguageModule, window: Window) -> None:
        self.module, self.inputs, self.targets = module, window.inputs.clone(), window.targets.clone()
        self.state: State = change_parts(module.states["train"], Tensor.clone)
        self.loss: WindowLoss | None = None
        self.norm: Tensor | None = None
        self.clipped: Tensor | None = None
        optimizer = module.trainer.optimizers[0]
        optimizer.zero_grad()  # the gradients that the backward pass makes belong to the graph
        module.outcome = None  # it holds nodes of autograd that a step without a graph has made
        with capturable(optimizer):
            self.launch = cuda.capture(self._step, module.device)

    def _step(self) -> None:
        module, trainer = self.module, self.module.trainer
        optimizer, scaler = trainer.optimizers[0], module.scaler
        with trainer.precision_plugin.forward_context():
            loss, state = module.window_loss(Window(self.inputs, self.targets, False), self.state)
        (loss.minimised if scaler is None else scaler.scale(loss.minimised)).backward()
        self.norm, self.clipped = module.clip(trainer.gradient_clip_val, trainer.gradient_clip_algorithm, True)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        for own, new in zip(parts_of(self.state), parts_of(state), strict=True):
            own.copy_(new)
        self.loss = dataclasses.replace(loss, minimised=loss.minimised.detach())

    def __call__(self, window: Window) -> None:
        """Run the step of this window, and pass its results to the module."""
        module, before = self.module, self.module.states["train"]
        self.inputs.copy_(window.inputs)
        self.targets.copy_(window.targets)
        for own, given in zip(parts_of(self.state), parts_of(before), strict=True):
            if window.starts:
                own.zero_()
            elif own is not given:  # the window before had another shape
                own.copy_(given)
        self.launch()
        assert self.loss is not None
        module.states["train"] = self.state
        module.count_window(dataclasses.replace(self.loss))  # a new one: what it computes on request is of this step
        module.count_step(None if self.norm is None else self.norm.clone(), self.clipped)


class StepGraph:
    """Decides which steps are launched as a graph, and captures them; `demanded`: an error if that cannot be done."""

    def __init__(self, module: LanguageModule, demanded: bool) -> None:
        self.module, self.demanded = module, demanded
        self.seen: Counter[tuple[int, ...]] = Counter()
        self.captured: dict[tuple[int, ...], Captured] = {}
        self.failed = False

    def takes(self, window: Window) -> bool:
        """Whether this step is one for a graph; the first `cuda.WARM_UP` windows of a shape are not."""
        shape = tuple(window.inputs.shape)
        self.seen[shape] += 1
        known = shape in self.captured or len(self.captured) < MOST_SHAPES
        return known and not self.failed and self.seen[shape] > cuda.WARM_UP

    def step(self, window: Window) -> bool:
        """Make the step as a graph; False if it could not be captured, and nothing has happened."""
        shape = tuple(window.inputs.shape)
        if shape not in self.captured:
            scaler = self.module.scaler
            scale = None if scaler is None else scaler.get_scale()
            try:
                self.captured[shape] = Captured(self.module, window)
            except RuntimeError as error:
                if self.demanded:
                    raise
                self.failed = True
                if scaler is not None:
                    scaler.update(scale)  # forgets that it has begun a step
                log.warning("a step is not captured in a CUDA graph, the run goes on without: %s", first_line(error))
                return False
        with self.stream():
            self.captured[shape](window)
        return True

    def stream(self) -> contextlib.AbstractContextManager[None]:
        """Every step of the run is made on the stream of the captures."""
        return cuda.side_stream(self.module.device)
