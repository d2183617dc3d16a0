"""One step as a module of its own: (ids, h[, c]) -> (logits, h_n[, c_n]), with no loop over time, to be exported.

    ids (batch,) int64;   h, h_n, and the lstm's c, c_n (num_layers, batch, hidden);   logits (batch, vocab)

The weights are copies, laid out so that the first layer looks its column of U up instead of multiplying a one-hot.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from src.config.schema import to_plain
from src.errors import UserError
from src.files import user_path, write_atomic
from src.inference.incremental import nonlinearity_of
from src.inference.load import FORMAT
from src.inference.locate import run_of
from src.inference.options import EXPORTED, mistakes_in_output
from src.inference.trained_model import TrainedModel
from src.models.convert import read_layers
from src.models.gated import GRU, LSTM
from src.models.language_model import LanguageModel

Ids = Int[Tensor, " batch"]
States = Float[Tensor, "layers batch hidden"]
Logits = Float[Tensor, "batch vocab"]


def one_step(model: LanguageModel) -> nn.Module:
    """Return the step of a model, in evaluation mode, its parameters frozen."""
    recurrence = model.recurrence
    step: nn.Module
    if isinstance(recurrence, LSTM):
        step = LSTMStep([list(layer) for layer in recurrence.rnn.all_weights], model.readout)
    elif isinstance(recurrence, GRU):
        step = GRUStep([list(layer) for layer in recurrence.rnn.all_weights], model.readout)
    else:
        try:
            layers = [[U, W, b, torch.zeros_like(b)] for U, W, b in read_layers(recurrence)]
        except TypeError:  # a recurrence of one's own
            step = AnyStep(model)
        else:
            step = ElmanStep(layers, model.readout, nonlinearity_of(recurrence))
    return step.eval().requires_grad_(False)


def input_names(step: nn.Module) -> tuple[str, ...]:
    """`ids`, `h`, and of an lstm `c`."""
    return ("ids", "h", "c") if isinstance(step, LSTMStep) else ("ids", "h")


def output_names(step: nn.Module) -> tuple[str, ...]:
    """`logits`, `h_n`, and of an lstm `c_n`."""
    return ("logits", "h_n", "c_n") if isinstance(step, LSTMStep) else ("logits", "h_n")


class Step(nn.Module):
    """What all steps hold: the table of the first layer, the weights of all, the readout."""

    def __init__(self, layers: Sequence[Sequence[Tensor]], readout: nn.Module) -> None:
        super().__init__()
        copies = [[part.detach().clone() for part in layer] for layer in layers]
        self.table = nn.Parameter(copies[0][0].T.contiguous())  # (vocab, gates * hidden): a row an id
        self.U = nn.ParameterList(layer[0] for layer in copies[1:])
        self.W = nn.ParameterList(layer[1] for layer in copies)
        self.b = nn.ParameterList(layer[2] for layer in copies)
        self.b_hh = nn.ParameterList(layer[3] for layer in copies)
        self.readout = readout

    def from_below(self, layer: int, ids: Tensor, h_below: Tensor) -> Tensor:
        """U x + b of a layer, (batch, gates * hidden)."""
        x = F.embedding(ids, self.table) if layer == 0 else F.linear(h_below, self.U[layer - 1])
        return x + self.b[layer]

    def from_before(self, layer: int, h: Tensor) -> Tensor:
        """W h + b_hh of a layer, (batch, gates * hidden)."""
        return F.linear(h[layer], self.W[layer], self.b_hh[layer])


class ElmanStep(Step):
    """h = f(U x + W h + b)."""

    def __init__(self, layers: Sequence[Sequence[Tensor]], readout: nn.Module, nonlinearity: str) -> None:
        super().__init__(layers, readout)
        self.f = torch.relu if nonlinearity == "relu" else torch.tanh

    def forward(self, ids: Ids, h: States) -> tuple[Logits, States]:
        """Shapes as above."""
        h_n: list[Tensor] = []
        below = h[0]
        for layer in range(len(self.W)):
            below = self.f(self.from_below(layer, ids, below) + self.from_before(layer, h))
            h_n.append(below)
        return self.readout(below), torch.stack(h_n)


class LSTMStep(Step):
    """torch.nn.LSTM: c = f c + i g, h = o tanh(c)."""

    def forward(self, ids: Ids, h: States, c: States) -> tuple[Logits, States, States]:
        """Shapes as above."""
        h_n: list[Tensor] = []
        c_n: list[Tensor] = []
        below = h[0]
        for layer in range(len(self.W)):
            gates = self.from_below(layer, ids, below) + self.from_before(layer, h)
            i, f, g, o = gates.chunk(4, dim=1)
            cell = torch.sigmoid(f) * c[layer] + torch.sigmoid(i) * torch.tanh(g)
            below = torch.sigmoid(o) * torch.tanh(cell)
            h_n.append(below)
            c_n.append(cell)
        return self.readout(below), torch.stack(h_n), torch.stack(c_n)


class GRUStep(Step):
    """torch.nn.GRU: h = (1 - z) n + z h, the reset gate after the product."""

    def forward(self, ids: Ids, h: States) -> tuple[Logits, States]:
        """Shapes as above."""
        h_n: list[Tensor] = []
        below = h[0]
        for layer in range(len(self.W)):
            r_x, z_x, n_x = self.from_below(layer, ids, below).chunk(3, dim=1)
            r_h, z_h, n_h = self.from_before(layer, h).chunk(3, dim=1)
            z = torch.sigmoid(z_x + z_h)
            n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
            below = (1 - z) * n + z * h[layer]
            h_n.append(below)
        return self.readout(below), torch.stack(h_n)


class AnyStep(nn.Module):
    """Any model, by its own forward on a window of one step; its state is one tensor."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Ids, h: Tensor) -> tuple[Logits, Tensor]:
        """Shapes as above."""
        logits, h_n = self.model(ids[None], h)
        return logits[0], h_n


# ---- A step written as a file that other programs run, and held against the model before the file gets its name.

STEPS = 100  # carried, in the check of an exported step
AGREE = 1e-5  # largest difference of a logit that is rounding, in float32
Run = Callable[..., tuple[np.ndarray, ...]]


def needed(*modules: str) -> list[ModuleType]:
    """Import the libraries of the extra `export`; UserError, with how to install it, where one is missing."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise UserError(f"this format needs {' and '.join(modules)}: pip install -e '.[export]' ({error})") from error


def export_onnx(model: LanguageModel, path: Path, header: Mapping[str, str]) -> float:
    """Write the step as ONNX with any batch size, `header` in its metadata; return the largest difference found.

    Raises:
        UserError: the extra is missing, or the file does not compute what the model computes.
    """
    onnx, _, runtime = needed("onnx", "onnxscript", "onnxruntime")
    step, inputs = one_step(model), example(model)
    with silent():
        program = torch.onnx.export(
            step,
            inputs,
            input_names=input_names(step),
            output_names=output_names(step),
            dynamic_shapes=dynamic(len(inputs)),
            dynamo=True,
            verbose=False,
        )
        program.save(str(path), external_data=False)  # type: ignore[union-attr]  # a program, under dynamo=True
    written = onnx.load(path)
    onnx.helper.set_model_props(written, dict(header))
    onnx.checker.check_model(written)
    onnx.save(written, path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = input_names(step)

    def run(*values: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(session.run(list(output_names(step)), dict(zip(names, values, strict=True))))

    return agreement(model, run)


def export_torch(model: LanguageModel, path: Path, header: Mapping[str, str]) -> float:
    """Write the step as `torch.export` saves it, `header` as extra files; return the largest difference found."""
    step, inputs = one_step(model), example(model)
    with silent():
        program = torch.export.export(step, inputs, dynamic_shapes=dynamic(len(inputs)))
        torch.export.save(program, path, extra_files=dict(header))
        loaded = torch.export.load(path).module()
    return agreement(model, lambda *values: tuple(out.numpy() for out in loaded(*map(torch.from_numpy, values))))


def export_safetensors(model: LanguageModel, path: Path, header: Mapping[str, str]) -> float:
    """Write the weights under the names of `model.state_dict()`, `header` in the file's; 0.0: they are the same bits.

    Raises:
        UserError: the extra is missing, or a tensor did not come back as it was.
    """
    (safetensors,) = needed("safetensors.torch")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.save_file(weights, path, metadata=dict(header))
    back = safetensors.load_file(path)
    if back.keys() != weights.keys() or not all(torch.equal(back[name], weights[name]) for name in weights):
        raise UserError(f"{path} did not come back as it was written")
    return 0.0


def example(model: LanguageModel, batch: int = 2) -> tuple[Tensor, ...]:
    """ids (batch,) and a state of zeros; a batch of 2, since torch.export takes 1 for a constant."""
    ids = torch.zeros(batch, dtype=torch.int64)
    with torch.no_grad():
        _, state = model(ids[None], None)
    return ids, *(torch.zeros_like(part) for part in (state if isinstance(state, tuple) else (state,)))


def dynamic(inputs: int) -> tuple[dict[int, Any], ...]:
    """The axes whose size may be any: the batch, of ids and of each part of the state."""
    batch = torch.export.Dim("batch")
    return ({0: batch}, *({1: batch} for _ in range(inputs - 1)))


def agreement(model: LanguageModel, run: Run, batch: int = 3) -> float:
    """Return the largest difference of a logit over `STEPS` carried steps of random characters.

    Raises:
        UserError: it is more than rounding.
    """
    _, *state = (value.numpy() for value in example(model, batch))
    ids = np.random.default_rng(0).integers(0, example_size(model), (STEPS, batch))
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(ids), None)
    largest = 0.0
    for x_t, expected in zip(ids, logits.numpy(), strict=True):
        found, *state = run(x_t, *state)
        largest = max(largest, float(np.abs(found - expected).max()))
    if not largest <= AGREE * max(1.0, float(logits.abs().max())):
        raise UserError(
            f"the exported step differs from the model by {largest:.1e} after {STEPS} steps; nothing was kept"
        )
    return largest


def example_size(model: LanguageModel) -> int:
    """How many characters the model tells apart."""
    return int(model.readout.out_features if isinstance(model.readout, nn.Linear) else model.recurrence.hidden_size)  # type: ignore[arg-type]


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """The exporters print progress and warn of their own deprecations: neither says anything of this model."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


# ---- Carry a trained model away: where the file goes, what it says of itself; it has its name only once it is whole.

WRITERS = {"onnx": export_onnx, "torch": export_torch, "safetensors": export_safetensors}


class Exported(NamedTuple):
    """What was written, and the largest difference from the model that the check found."""

    files: list[Path]
    difference: float


def export_to(trained: TrainedModel, format: str, output: str | None = None) -> Exported:
    """Write a model as `onnx`, `torch` or `safetensors`; the weights get their configuration beside them as JSON.

    Raises:
        UserError: an extra that is missing, a place that will not do, a file that does not agree with the model.
    """
    if wrong := mistakes_in_output(format, output):
        raise UserError(*wrong)
    target = user_path(output) if output else folder_for(trained) / EXPORTED[format]
    target.parent.mkdir(exist_ok=True)
    # torch.export insists on its own ending, so the temporary name keeps it
    temporary = target.with_name(f".{os.getpid()}.{EXPORTED[format]}")
    try:
        difference = WRITERS[format](trained.model, temporary, header(trained))
        os.umask(umask := os.umask(0))
        temporary.chmod(0o666 & ~umask)  # safetensors writes for its owner alone
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    files = [target]
    if format == "safetensors":
        files.append(target.with_suffix(".json"))
        write_atomic(files[1], json.dumps(identity(trained), indent=2, ensure_ascii=False) + "\n")
    return Exported(files, difference)


def folder_for(trained: TrainedModel) -> Path:
    """`export/` in the run's folder, or beside a checkpoint that was carried elsewhere."""
    return (run_of(trained.path) or trained.path.parent) / "export"


def identity(trained: TrainedModel) -> dict[str, object]:
    """What makes the file a model: the same words as in a checkpoint."""
    vocabulary = {**trained.vocabulary.to_plain(), "symbols": list(trained.vocabulary.symbols)}
    return {
        "format": FORMAT,
        "vocabulary": vocabulary,
        "config": to_plain(trained.config),
        "progress": trained.progress,
    }


def header(trained: TrainedModel) -> dict[str, str]:
    """The identity as JSON, whole under `unroll`, and the two that other programs want by themselves."""
    plain = identity(trained)
    return {
        "unroll": json.dumps(plain, ensure_ascii=True),
        "vocabulary": json.dumps(plain["vocabulary"], ensure_ascii=True),
        "config": json.dumps(plain["config"], ensure_ascii=True),
    }
