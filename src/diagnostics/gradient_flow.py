"""How far back an error reaches: |dL_T/dz_(T-k)| by lag k and layer, over training."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.config.schema import DiagnosticConfig
from src.diagnostics import drawing
from src.diagnostics.diagnostic import Diagnostic, EvalView
from src.inference.incremental import nonlinearity_of
from src.models.convert import Layer, read_layers
from src.models.language_model import NO_TARGET, LanguageModel, reads_all

log = logging.getLogger(__name__)
FALLEN = 0.01  # of what arrives at the last step: the usual mark of how far a gradient reaches
VANISHED = 1e-3  # of what arrives at the last step: negligible in one optimizer step
EXPLODED = 10.0
STREAMS = 8  # columns of the window that is measured: the means over them hardly move any more
WARM_UP = 16  # steps read before it from a zero state, so that the window starts as windows do in training
SENTENCES = {
    "exploding": f"the gradient explodes: in layer {{layer}} |dL_T/dz_(T-k)| is over {EXPLODED:g} times that at lag 0 "
    "at lag k = {lag}; trainer.gradient_clip_val=1 bounds the step",
    "vanishing": f"the gradient vanishes: in layer {{layer}} |dL_T/dz_(T-k)| stays below {VANISHED:g} of that at lag 0 "
    "from lag k = {lag} on; what lies further back is not learned from this error; model.init=orthogonal, "
    "model=lstm or model=gru carry it further",
}
MOST_POINTS = 128  # columns of the heat map; beyond it every other point is dropped


class PlainRecurrence:
    """A CPU copy of a recurrence with a single z_t per layer and step; TypeError for others (a gated one, say)."""

    def __init__(self, recurrence: nn.Module) -> None:
        self.layers = [Layer(*(widened(part) for part in layer)) for layer in read_layers(recurrence)]
        self.f = torch.tanh if nonlinearity_of(recurrence) == "tanh" else torch.relu

    def run(self, inputs: Tensor, state: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Return every z_t (batch, hidden), layer after layer, and h of each layer, (time, batch, hidden).

        inputs (time, batch) ids; state (num_layers, batch, hidden), zeros if None.
        """
        z, h = [], []  # type: list[Tensor], list[Tensor]
        for layer, (U, W, b) in enumerate(self.layers):
            h_t = U.new_zeros(inputs.shape[1], len(W)) if state is None else state[layer].to(W)
            steps = []
            below = h[-1].shape[2] if h else 0  # columns of U that read the layer below; the others read the input
            share = b + U.T[below:][inputs] if U.shape[1] > below else b
            for Ux_t in h[-1] @ U[:, :below].T + share if h else share:
                z.append(torch.addmm(Ux_t, h_t, W.T))
                h_t = self.f(z[-1])
                steps.append(h_t)
            h.append(torch.stack(steps))
        return z, h


def widened(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU, in single precision at least."""
    return tensor.detach().to("cpu", torch.promote_types(tensor.dtype, torch.float32), copy=True)


def plain(view: EvalView) -> PlainRecurrence | None:
    """Return the model's recurrence as numbers, or None if it has other equations."""
    with contextlib.suppress(TypeError):
        return PlainRecurrence(view.model.recurrence)
    return None


def window_deltas(
    model: LanguageModel, inputs: Tensor, targets: Tensor, state: Tensor | None, last_alone: bool
) -> list[Tensor]:
    """Return delta_t = dL/dz_t of every layer, (time, batch, hidden) each, for one window (time, batch).

    Each stream has a loss of its own: L = L_T if `last_alone`, else L = L_1 + ... + L_T. A step without a target adds
    nothing. No gradient of the model is touched.
    """
    with torch.enable_grad():
        recurrence = PlainRecurrence(model.recurrence)
        for layer in recurrence.layers:
            layer.b.requires_grad_()  # so that autograd follows every z_t
        z, h = recurrence.run(inputs, state)
        readout = copy.deepcopy(model.readout).to("cpu", h[-1].dtype)
        first = len(inputs) - 1 if last_alone else 0
        logits = readout((torch.cat(h, dim=-1) if reads_all(model.recurrence) else h[-1])[first:]).flatten(0, 1)
        loss = F.cross_entropy(logits, targets[first:].flatten(), reduction="sum", ignore_index=NO_TARGET)
        return list(torch.stack(torch.autograd.grad(loss, z)).unflatten(0, (len(h), len(inputs))))


def sizes(deltas: Sequence[Tensor]) -> Tensor:
    """Return |delta_t|, the norm over a stream's units averaged over streams: (layers, time)."""
    return torch.stack([torch.linalg.vector_norm(layer.double(), dim=-1).mean(-1) for layer in deltas])


def verdict(curve: Tensor) -> tuple[str, int] | None:
    """Judge |dL_T/dz_(T-k)| by lag k (time,): `exploding` or `vanishing`, and from which lag on.

    Exploding: not finite, or over EXPLODED times that at lag 0. Vanishing: below VANISHED of it up to the window's end.
    """
    beyond = (~torch.isfinite(curve) | ((curve > EXPLODED * curve[0]) & (curve[0] > 0))).nonzero()
    if len(beyond):
        return "exploding", int(beyond[0])
    lag = lag_of(curve, VANISHED)
    return ("vanishing", lag) if lag < len(curve) else None


def verdicts(lags: Tensor) -> dict[str, str]:
    """Return a sentence by kind of verdict, for the first layer of (layers, time) that has it."""
    judged = [(*found, layer) for layer, curve in enumerate(lags) if (found := verdict(curve))]
    return {kind: SENTENCES[kind].format(layer=layer, lag=lag) for kind, lag, layer in reversed(judged)}


def lag_of(curve: Tensor, share: float) -> int:
    """Return the lag from which on |dL_T/dz_(T-k)| (time,) is at most a share of that at lag 0, or `time`."""
    above = (~(curve <= share * curve[0])).nonzero()  # nan, too
    return int(above[-1]) + 1 if len(above) else 0


class GradientFlow(Diagnostic):
    """Draw `gradient/by_lag`, write `gradient/lag_1_percent/layer_<l>`, log where the gradient vanishes or explodes.

    The number is the lag at which the gradient has fallen to 1 %; the window's length if it has not fallen so far.
    Measured without dropout on the second window of the validation text, from the state after the end of the first; for
    the loss of the last step alone, and in the figure also for that of all steps.
    """

    name, measures = "gradient_flow", True
    kept = ("steps", "lags", "said")

    def __init__(self, config: DiagnosticConfig) -> None:
        super().__init__(config)
        self.steps: list[int] = []
        self.lags: list[Tensor] = []  # (layers, time) each: |dL_T/dz_(T-k)|, entry k is k steps before the last
        self.said: list[str] = []  # verdicts that were logged

    def applies_to(self, view: EvalView) -> bool:
        """A gated cell has no single z_t, but one per gate."""
        return plain(view) is not None

    def look(self, view: EvalView) -> dict[str, float]:
        now = measured(view, last_alone=True).flip(1)
        if self.lags and self.lags[-1].shape != now.shape:  # of an earlier version, in shorter windows
            self.steps, self.lags = [], []
        if len(self.steps) >= MOST_POINTS:
            self.steps, self.lags = self.steps[::2], self.lags[::2]
        self.steps.append(view.step)
        self.lags.append(now)
        for kind, sentence in verdicts(self.lags[-1]).items():
            if kind not in self.said:
                self.said.append(kind)
                sentence = sentence.replace(f"model.init={view.module.config.model.init}, ", "")  # it is set already
                log.log(logging.WARNING if kind == "exploding" else logging.INFO, "at step %d %s", view.step, sentence)
        lags = [lag_of(curve, FALLEN) for curve in self.lags[-1]]
        return {f"gradient/lag_1_percent/layer_{layer}": float(lag) for layer, lag in enumerate(lags)}

    def draw(self, view: EvalView) -> dict[str, Any]:
        judged = "; ".join(sentence.split(";")[0] for sentence in verdicts(self.lags[-1]).values())
        window = measured(view, last_alone=False)
        return {"gradient/by_lag": gradient_by_lag(self.steps, torch.stack(self.lags), window, judged)}


def measured(view: EvalView, last_alone: bool) -> Tensor:
    """Return |delta_t| (layers, time) of the window that is always measured; of streams with a target at its end."""
    windows = view.windows()
    index = 1 if len(windows) > 2 else 0  # the last one may be short
    window = windows.window(0, index)
    columns = (window.targets[-1] >= 0).nonzero()[:STREAMS, 0]
    state = None
    if not window.starts:
        before = windows.window(0, index - 1).inputs[-WARM_UP:, columns]
        state = torch.stack([layer[-1] for layer in PlainRecurrence(view.model.recurrence).run(before)[1]])
    return sizes(window_deltas(view.model, window.inputs[:, columns], window.targets[:, columns], state, last_alone))


def gradient_by_lag(steps: Sequence[int], lags: Tensor, window: Tensor, footnote: str = "") -> Any:
    """Draw how far back an error reaches; the last of the steps is now.

    lags (points, layers, time): |dL_T/dz_(T-k)| at each of the steps; window (layers, time): |delta_t| of all losses.
    """
    from matplotlib.colors import LogNorm

    points, layers, time = lags.shape
    rows = drawing.in_rows(layers)
    title = f"How far back the gradient reaches, after {steps[-1]:,} steps"
    figure, [[now, whole], *maps] = drawing.page(title, 4.0 + 2.0 * len(rows), [2, *rows], footnote=footnote)
    values = drawing.positive(lags)
    marker = "o" if time == 1 else None  # one point makes no line
    for layer in range(layers):
        colour = drawing.COLOURS[layer % len(drawing.COLOURS)]
        look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": ("-", "--", "-.")[layer % 3]}
        now.plot(values[-1, layer], label=f"layer {layer}", **look)
        now.plot(values[0, layer], color=colour, linewidth=0.7, linestyle=":")
        whole.plot(range(1, time + 1), drawing.positive(window[layer]), **look)
    now.set(title=f"The last step's error (dotted: at step {steps[0]:,})", xlabel="lag k, steps back")
    now.set(ylabel="|dL_T / dz_(T-k)|")
    whole.set(title="The errors of all steps", xlabel="step t of the window", ylabel="|delta_t| = |dL / dz_t|")
    for axes in (now, whole):
        axes.set_yscale("log")
        drawing.log_scale(axes.yaxis)
        drawing.whole_numbers(axes)
    now.legend(loc="upper right")
    known = values[values > 0]
    low, high = (known.min(), known.max()) if len(known) else (0.1, 1.0)
    panels = [axes for row in maps for axes in row]
    for layer, axes in enumerate(panels):
        image = drawing.heat(axes, values[:, layer].T, norm=LogNorm(low, max(high, 3 * low)), origin="lower")
        axes.set(title=f"Layer {layer} over training", xlabel="optimizer steps", ylabel="lag k, steps back")
        drawing.whole_numbers(axes, "y")
        ticks = sorted({round(i * (points - 1) / 3) for i in range(4)})
        axes.set_xticks(ticks, [f"{steps[tick]:,}" for tick in ticks])
    drawing.log_scale(drawing.colour_bar(image, panels, "|dL_T / dz_(T-k)|, grey: less"))
    return figure
