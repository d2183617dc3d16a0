"""Export: a trained model as a file for other programs, checked against the model before the file gets its name.

`onnx` and `torch` have one step with no loop over time, `safetensors` has the weights:

    (ids, h[, c]) -> (logits, h_n[, c_n])      ids (batch,) int64; h, and c of an lstm, (num_layers, batch, hidden)
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.config.schema import to_plain
from src.errors import UserError
from src.files import to_json, user_path, write_atomic, write_json
from src.inference.incremental import Network, network_of
from src.inference.load import FORMAT
from src.inference.options import EXPORTED, errors_in_output, run_of
from src.inference.trained_model import TrainedModel
from src.models.language_model import LanguageModel

STEPS = 100  # carried, in the check of an exported step
AGREE = 1e-5  # the largest difference of a logit that is rounding, in float32
Run = Callable[..., Any]  # arrays ids, h[, c] -> arrays logits, h_n[, c_n]


class CellStep(nn.Module):
    """One step of a network; the first layer looks a row of U up instead of multiplying a one-hot vector."""

    def __init__(self, network: Network, readout: nn.Module) -> None:
        super().__init__()
        self.cell, self.readout = network.cell, readout
        self.f = torch.relu if network.nonlinearity == "relu" else torch.tanh
        self.layers = nn.ModuleList(nn.ParameterList(layer) for layer in network.layers)

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Shapes as above."""
        below, ends = ids, []
        for layer, weights in enumerate(self.layers):
            U, W, b_ih, b_hh = (getattr(weights, str(i)) for i in range(4))
            before = tuple(part[layer] for part in state)
            x = (F.embedding(ids, U) if layer == 0 else below @ U) + b_ih
            after = self.cell(x, before[0] @ W + b_hh, before, self.f, torch.sigmoid)
            below = after[0]
            ends.append(after)
        return self.readout(below), *(torch.stack(parts) for parts in zip(*ends, strict=True))


class ForwardStep(nn.Module):
    """One step of any model, by its own forward."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Shapes as above."""
        logits, end = self.model(ids[None], state if len(state) > 1 else state[0])
        return logits[0], *(end if isinstance(end, tuple) else (end,))


def one_step(model: LanguageModel) -> nn.Module:
    """Return the step of a model, in evaluation mode, its parameters frozen."""
    network = network_of(model.recurrence)
    step = ForwardStep(model) if network is None else CellStep(network, model.readout)
    return step.eval().requires_grad_(False)


def example(model: LanguageModel, batch: int = 2) -> tuple[Tensor, ...]:
    """Return ids (batch,) and a state of zeros; a batch of 2, since torch.export takes 1 for a constant."""
    ids = torch.zeros(batch, dtype=torch.int64)
    with torch.no_grad():
        _, state = model(ids[None], None)
    return ids, *(torch.zeros_like(part) for part in (state if isinstance(state, tuple) else (state,)))


def check_agreement(model: LanguageModel, run: Run, batch: int = 3) -> float:
    """Return the largest difference of a logit over `STEPS` carried steps of random characters.

    Raises:
        UserError: it is more than rounding.
    """
    _, *state = (value.numpy() for value in example(model, batch))
    vocab_size = len(run(np.zeros(batch, np.int64), *state)[0][0])
    ids = np.random.default_rng(0).integers(0, vocab_size, (STEPS, batch))
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


# -- the three formats: each gives the content of the file, and the largest difference from the model that it found --


def export_onnx(model: LanguageModel, header: dict[str, str]) -> tuple[bytes, float]:
    """The step as ONNX for any batch size, `header` in its metadata."""
    onnx, _, runtime = needed("onnx", "onnxscript", "onnxruntime")
    inputs = example(model)
    names = ["ids", "h", "c"][: len(inputs)], ["logits", "h_n", "c_n"][: len(inputs)]
    shapes = dynamic_shapes(inputs)
    with silent():
        program = torch.onnx.export(
            one_step(model), inputs, input_names=names[0], output_names=names[1], dynamic_shapes=shapes, verbose=False
        )
        proto = program.model_proto  # type: ignore[union-attr]
    onnx.helper.set_model_props(proto, header)
    onnx.checker.check_model(proto)
    content = proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    run = lambda *values: session.run(names[1], dict(zip(names[0], values, strict=True)))  # noqa: E731
    return content, check_agreement(model, run)


def export_torch(model: LanguageModel, header: dict[str, str]) -> tuple[bytes, float]:
    """The step as `torch.export` saves it, for any batch size, `header` as extra files."""
    inputs, file = example(model), io.BytesIO()
    with silent():
        program = torch.export.export(one_step(model), inputs, dynamic_shapes=dynamic_shapes(inputs))
        torch.export.save(program, file, extra_files=dict(header))
        loaded = torch.export.load(io.BytesIO(file.getvalue())).module()
    run = lambda *values: [out.numpy() for out in loaded(*map(torch.from_numpy, values))]  # noqa: E731
    return file.getvalue(), check_agreement(model, run)


def export_safetensors(model: LanguageModel, header: dict[str, str]) -> tuple[bytes, float]:
    """The weights under the names of `model.state_dict()`, `header` in the file's."""
    (safetensors,) = needed("safetensors.torch")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    content = safetensors.save(weights, metadata=header)
    back = safetensors.load(content)
    if back.keys() != weights.keys() or not all(torch.equal(back[name], weights[name]) for name in weights):
        raise UserError("the weights that were read back differ from those that were written; nothing was kept")
    return content, 0.0


WRITERS = {"onnx": export_onnx, "torch": export_torch, "safetensors": export_safetensors}


def needed(*modules: str) -> list[ModuleType]:
    """Import the libraries of the extra `export`; a UserError tells how to install them."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise UserError(f"this format needs {' and '.join(modules)}: pip install -e '.[export]' ({error})") from error


def dynamic_shapes(inputs: tuple[Tensor, ...]) -> Any:
    """Return the axes whose size may differ: the batch, of ids and of each part of the state."""
    batch = torch.export.Dim("batch")
    return {0: batch}, tuple({1: batch} for _ in inputs[1:])


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Hide the exporters' progress and the warnings of their own deprecations."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def export_to(trained: TrainedModel, format: str, output: str | None = None) -> tuple[list[Path], float]:
    """Write a model as `onnx`, `torch` or `safetensors`, the last with its configuration beside it as JSON.

    Returns the files and the largest difference from the model that the check found.

    Raises:
        UserError: an extra that is missing, a place that cannot be written to, a file that differs from the model.
    """
    if wrong := errors_in_output(format, output):
        raise UserError(*wrong)
    folder = (run_of(trained.path) or trained.path.parent) / "export"
    vocabulary = {**trained.vocabulary.to_plain(), "symbols": list(trained.vocabulary.symbols)}
    config = to_plain(trained.config)
    identity = {"format": FORMAT, "vocabulary": vocabulary, "config": config, "progress": trained.progress}
    plain = {"unroll": identity, "vocabulary": vocabulary, "config": config}  # all of it, and what others need of it
    # Lone surrogates, which a path may have, as JSON's escapes
    header = {name: to_json(value).encode("utf-8", "backslashreplace").decode() for name, value in plain.items()}
    content, difference = WRITERS[format](trained.model, header)
    files = [user_path(output) if output else folder / EXPORTED[format]]
    files[0].parent.mkdir(exist_ok=True)
    write_atomic(files[0], content)
    if format == "safetensors":
        files.append(files[0].with_suffix(".json"))
        write_json(files[1], identity)
    return files, difference
