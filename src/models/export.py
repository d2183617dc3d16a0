"""A step written as a file that other programs run, and held against the model before the file gets its name."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.mistakes import Mistake
from src.models.language_model import LanguageModel
from src.models.one_step import input_names, one_step, output_names

STEPS = 100  # carried, in the check of an exported step
AGREE = 1e-5  # largest difference of a logit that is rounding, in float32
Run = Callable[..., tuple[np.ndarray, ...]]


def needed(*modules: str) -> list[ModuleType]:
    """Import the libraries of the extra `export`; Mistake, with the command that installs it, where one is missing."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise Mistake(f"this format needs {' and '.join(modules)}: pip install -e '.[export]' ({error})") from error


def export_onnx(model: LanguageModel, path: Path, header: Mapping[str, str]) -> float:
    """Write the step as ONNX with any batch size, `header` in its metadata; return the largest difference found.

    Raises:
        Mistake: the extra is missing, or the file does not compute what the model computes.
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
        Mistake: the extra is missing, or a tensor did not come back as it was.
    """
    (safetensors,) = needed("safetensors.torch")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.save_file(weights, path, metadata=dict(header))
    back = safetensors.load_file(path)
    if back.keys() != weights.keys() or not all(torch.equal(back[name], weights[name]) for name in weights):
        raise Mistake(f"{path} did not come back as it was written")
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
        Mistake: it is more than rounding.
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
        raise Mistake(
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
