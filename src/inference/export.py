"""Export: a trained model as a file for other programs, checked against the model before the file gets its name.

`html` is a page (page.py), `safetensors` has the weights, `onnx` and `torch` have one step with no loop over time:

    (ids, h[, c]) -> (logits, h_n[, c_n])      ids (batch,) int64; h, and c of an lstm, (num_layers, batch, hidden)
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from src.config.schema import to_plain
from src.errors import UserError
from src.files import to_json, user_path, write_json, write_result
from src.inference.incremental import Network, network_of, parts_of
from src.inference.load import FORMAT, TrainedModel, export_libraries
from src.inference.options import EXPORTED, run_of
from src.models.language_model import LanguageModel

STEPS = 100  # carried, in the check of an exported step
AGREE = 1e-5  # the largest difference of a logit that is rounding, in float32


class CellStep(nn.Module):
    """One step of a network; the first layer looks a row of U up instead of multiplying a one-hot vector."""

    def __init__(self, network: Network, readout: nn.Module) -> None:
        super().__init__()
        self.cell, self.readout, self.to_output = network.cell, readout, network.to_output
        self.f = torch.relu if network.nonlinearity == "relu" else torch.tanh
        self.layers = nn.ModuleList(nn.ParameterList(layer) for layer in network.layers)

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        ends: list[tuple[Tensor, ...]] = []
        for layer, weights in enumerate(self.layers):
            T, U, W, b_ih, b_hh = (getattr(weights, str(i)) for i in range(5))
            before = tuple(part[layer] for part in state)
            x = (F.embedding(ids, T) if len(T) else 0) + (ends[-1][0] @ U if ends else 0) + b_ih
            ends.append(self.cell(x, before[0] @ W + b_hh, before, self.f, torch.sigmoid))
        top = torch.cat([parts[0] for parts in ends], dim=1) if self.to_output else ends[-1][0]
        return self.readout(top), *(torch.stack(parts) for parts in zip(*ends, strict=True))


class ForwardStep(nn.Module):
    """One step of any model, by its own forward."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        logits, end = self.model(ids[None], state if len(state) > 1 else state[0])
        return logits[0], *parts_of(end)


def one_step(model: LanguageModel) -> nn.Module:
    """Return the step of a model, in evaluation mode, its parameters frozen."""
    network = network_of(model.recurrence)
    step = ForwardStep(model) if network is None else CellStep(network, model.readout)
    return step.eval().requires_grad_(False)


def example(model: LanguageModel, batch: int = 2) -> tuple[tuple[Tensor, ...], Any]:
    """Return ids (batch,) and the parts of a state of zeros, and which of their axes is the batch, of any size."""
    # The batch is 2, since torch.export takes 1 for a constant
    ids, any_size = torch.zeros(batch, dtype=torch.int64), torch.export.Dim("batch")
    with torch.no_grad():
        parts = parts_of(model(ids[None], None)[1])
    return (ids, *map(torch.zeros_like, parts)), ({0: any_size}, tuple({1: any_size} for _ in parts))


def check_agreement(model: LanguageModel, run: Callable[..., Any], batch: int = 3) -> float:
    """Return the largest difference of a logit over `STEPS` carried steps; a UserError if it is more than rounding."""
    _, *state = (value.numpy() for value in example(model, batch)[0])
    ids = np.random.default_rng(0).integers(0, len(run(np.zeros(batch, np.int64), *state)[0][0]), (STEPS, batch))
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(ids), None)
    largest = 0.0
    for x_t, expected in zip(ids, logits.numpy(), strict=True):
        found, *state = run(x_t, *state)
        largest = max(largest, float(np.abs(found - expected).max()))
    if not largest <= AGREE * max(1.0, float(logits.abs().max())):
        raise UserError(f"the exported step differs from the model by {largest:.1e}; nothing was kept")
    return largest


def export_onnx(model: LanguageModel, header: dict[str, str]) -> tuple[bytes, float]:
    """Return the step as ONNX for any batch size, `header` in its metadata, and its difference from the model."""
    onnx, _, runtime = export_libraries("onnx", "onnxscript", "onnxruntime")
    inputs, shapes = example(model)
    before, after = ["ids", "h", "c"][: len(inputs)], ["logits", "h_n", "c_n"][: len(inputs)]
    options: dict[str, Any] = {"input_names": before, "output_names": after, "dynamic_shapes": shapes}
    proto = torch.onnx.export(one_step(model), inputs, verbose=False, **options).model_proto  # type: ignore[union-attr]
    onnx.helper.set_model_props(proto, header)
    onnx.checker.check_model(proto)
    content = proto.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, check_agreement(model, lambda *values: session.run(after, dict(zip(before, values, strict=True))))


def export_torch(model: LanguageModel, header: dict[str, str]) -> tuple[bytes, float]:
    """Return the step as `torch.export` saves it, `header` as extra files, and its difference from the model."""
    (inputs, shapes), file = example(model), io.BytesIO()
    torch.export.save(torch.export.export(one_step(model), inputs, dynamic_shapes=shapes), file, extra_files=header)
    loaded = torch.export.load(io.BytesIO(file.getvalue())).module()
    run = lambda *values: [out.numpy() for out in loaded(*map(torch.from_numpy, values))]  # noqa: E731
    return file.getvalue(), check_agreement(model, run)


def export_safetensors(model: LanguageModel, header: dict[str, str]) -> tuple[bytes, float]:
    """Return the weights under the names of `model.state_dict()`, `header` in the file's, and 0, the difference."""
    (safetensors,) = export_libraries("safetensors.torch")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    content = safetensors.save(weights, metadata=header)
    back = safetensors.load(content)
    if back.keys() != weights.keys() or not all(torch.equal(back[name], weights[name]) for name in weights):
        raise UserError("the weights that were read back differ from those that were written; nothing was kept")
    return content, 0.0


WRITERS = {"onnx": export_onnx, "torch": export_torch, "safetensors": export_safetensors}


def export_to(
    trained: TrainedModel, format: str, output: str | None = None, example: str | None = None
) -> tuple[list[Path], float]:
    """Write a model in a format; return the files and the largest difference found (html: as `html_page`)."""
    vocabulary = {**trained.vocabulary.to_plain(), "symbols": list(trained.vocabulary.symbols)}
    config = to_plain(trained.config)
    identity = {"format": FORMAT, "vocabulary": vocabulary, "config": config, "progress": trained.progress}
    plain = {"unroll": identity, "vocabulary": vocabulary, "config": config}  # all of it, and what others need of it
    content: str | bytes
    if format == "html":
        from src.inference.page import html_page

        content, difference = html_page(trained, example)
    else:
        texts = {name: to_json(value, ascii=True) for name, value in plain.items()}
        logging.disable(logging.WARNING)  # the exporters log progress and deprecation warnings
        try:
            with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
                content, difference = WRITERS[format](trained.model, texts)
        finally:
            logging.disable(logging.NOTSET)
    folder = (run_of(trained.path) or trained.path.parent) / "export"
    files = [user_path(output) if output else folder / EXPORTED[format]]
    if format == "safetensors":
        files.append(files[0].with_suffix(".json"))
        if files[1].exists() and "vocabulary" not in files[1].read_text(errors="replace"):
            raise UserError(f"{files[1]} is no file of an export, and would be replaced; name another file: output=...")
    if not output and (link := next((path for path in (folder, *files) if path.is_symlink()), None)):
        raise UserError(f"{link} is a symbolic link, in a folder that may be somebody else's; name a file: output=...")
    try:
        files[0].parent.mkdir(exist_ok=True)
        write_result(str(files[0]), content)
        if format == "safetensors":
            write_json(files[1], identity)
    except OSError as error:
        raise UserError(f"{files[-1]} cannot be written ({error.strerror}); name another file: output=...") from error
    return files, difference
