"""`format=html`: one page that writes and scores text in a browser, by itself; its inference is in page.js.

The weights are rounded to float16. The page holds the model, its symbols, its sizes, its losses and the name of the
data group, but nothing of the training text, its path, the command or the machine.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, Template
from markupsafe import Markup
from torch import nn

from src.config.schema import MODEL_CLASSES, SamplingConfig
from src.data.vocabulary import label
from src.errors import UserError, counted
from src.files import to_json
from src.inference.evaluate import Score, score_ids
from src.inference.generate import start
from src.inference.incremental import network_of
from src.inference.load import TrainedModel
from src.inference.options import run_of
from src.reports.runs import Run, mapping, number, read_run

HERE = Path(__file__).parent
MEASURED = 2000  # symbols that the model writes, to measure what rounding costs
LOSSES = {"train/bits_per_character": "training text", "val/bits_per_character": "validation text"}
LEVELS = 16  # of colour on the page of texts coloured by surprisal
BITS_PER_LEVEL = 0.75  # so that the darkest begins at 11.25 bits, one in 2,400
OWN_TEXTS = {"text": "a text", "lines": "a list"}  # for the names of the data groups that are no name of a text


def html_page(trained: TrainedModel, example: str | None = None) -> tuple[str, float]:
    """Return the page, and by how many bits per character rounding changes the loss on a text that the model writes.

    `example` is the text in its box at first. UserError: a class of the user's own, weights beyond float16, an example
    with characters that are not known.
    """
    config, vocabulary = trained.config, trained.vocabulary
    if config.model._target_ not in MODEL_CLASSES:
        what = f"{config.model._target_} has equations of its own, which the page cannot compute"
        raise UserError(f"format=html: {what}; use format=onnx or format=torch")
    if config.data.is_task:
        what = f"data={config.data.name} is a generated task, of which only some symbols are targets"
        raise UserError(f"format=html: {what}; the page supports texts; use another format")
    if example is not None:
        trained.ids(example, "example")
    rounded = rounded_to_float16(trained)
    written = np.concatenate([*islice(start(trained, trained.start, SamplingConfig(seed=0)), MEASURED)])
    loss = [score_ids(one, written, "the model's own text").bits_per_character for one in (trained, rounded)]
    folder = run_of(trained.path)
    run = Run(trained.path) if folder is None else read_run(folder)
    known = mapping(run.record.get("baselines")).items()
    baselines = {name: bits for name, value in known if (bits := number(value)) is not None}
    size = number(mapping(mapping(run.record.get("data_provenance")).get("characters")).get("train"))
    points = [[line.get("characters"), *map(line.get, LOSSES)] for line in run.curve]
    curve = [point for point in points if point[0] and point[1:] != [None, None]]
    data = {
        **weights_of(rounded.model),
        "kind": vocabulary.kind, "codes": vocabulary.to_plain()["codes"], "labels": [*map(label, vocabulary.symbols)],
        "lowercase": config.data.lowercase, "boundary": trained.boundary_id, "start": trained.start, "example": example,
        "curve": curve, "ngram": baselines.get("ngram_5"),
    }  # fmt: skip
    page = template("page.html.jinja").render(
        title=f"A recurrent network trained on {OWN_TEXTS.get(config.data.name, config.data.name)}",
        heading=f"{counted(data['layers'], 'layers')} of {counted(data['hidden'], 'hidden units')}",
        facts=facts_of(trained, run, size, baselines, loss), data=data, json=in_script(data),
    )  # fmt: skip
    return page, loss[1] - loss[0]


def rounded_to_float16(trained: TrainedModel) -> TrainedModel:
    """Return the model with its weights rounded to the nearest float16; UserError if that has no number for one."""
    model = deepcopy(trained.model)
    for name, weight in model.named_parameters():
        half = weight.detach().half()
        if not torch.isfinite(half).all():
            what = f"{name} holds {float(weight.abs().max()):.0f}, and float16 ends at 65,504"
            raise UserError(f"format=html: {what}; use format=safetensors")
        weight.data = half.to(weight.dtype)
    return replace(trained, model=model)


def weights_of(model: Any) -> dict[str, Any]:
    """Return a network as JSON: sizes, the matrices as base64 of float16, layer by layer, and the biases of float32."""
    network = network_of(model.recurrence)
    assert network is not None
    matrices = [part for *of_layer, _, _ in network.layers for part in of_layer]
    biases = [part for *_, b_ih, b_hh in network.layers for part in (b_ih, b_hh)]
    if has_readout := isinstance(model.readout, nn.Linear):
        matrices.append(model.readout.weight.t())
        biases.append(model.readout.bias)
    stored = [
        b64encode(np.concatenate([part.numpy().ravel() for part in parts]).astype(kind).tobytes()).decode()
        for parts, kind in ((matrices, "<f2"), (biases, "<f4"))
    ]
    cell = network.cell.__name__.removesuffix("_cell")
    return {
        "cell": cell, "nonlinearity": network.nonlinearity, "layers": len(network.layers),
        "hidden": model.recurrence.hidden_size, "readout": has_readout, "weights": stored[0], "biases": stored[1],
        "to_output": network.to_output, "from_input": len(network.layers) > 1 and len(network.layers[-1][0]) > 0,
    }  # fmt: skip


def facts_of(
    trained: TrainedModel, run: Run, size: float | None, baselines: Mapping[str, float], loss: list[float]
) -> list[tuple[str, str]]:
    """Return what the page says of the model, as (name, text); `size` is that of the training text."""
    model, step, kind, spent = trained.config.model, trained.progress["step"], trained.vocabulary.kind, run.numbers
    count = sum(parameter.numel() for parameter in trained.model.parameters())
    units = f"{counted(model.num_layers, 'layers')} of {model.hidden_size:,} {model.nonlinearity or ''} units"
    units += f", skip={model.skip}" if model.skip else ""
    symbols = f"{len(trained.vocabulary)} different ones"
    text = f"{size:,.0f} {kind}, {symbols}" if size is not None else symbols.replace("ones", kind)
    facts = [
        ("network", f"{model.name}, {units}, {count:,} weights; init {model.init}, readout {model.readout}"),
        ("trained on", f"{OWN_TEXTS.get(trained.config.data.name, trained.config.data.name)}: {text}"),
    ]
    if {"epochs", "steps", "characters", "seconds"} <= spent.keys():
        length = f"{counted(int(spent['epochs']), 'epochs')}, {counted(int(spent['steps']), 'steps')}"
        facts.append(("training", f"{length}, {spent['characters']:,.0f} {kind} read in {spent['seconds']:,.0f} s"))
    known = [("a counted 5-gram", baselines.get("ngram_5")), ("a uniform guess", baselines.get("uniform"))]
    beside = "".join(f"; {name} {value:.3f}" for name, value in known if value is not None)
    for line in [line for line in run.curve if line["step"] == step][-1:]:
        losses = [f"{line[key]:.3f} on the {name}" for key, name in LOSSES.items() if line.get(key) is not None]
        facts.append((f"bits per character after {step:,} steps", ", ".join(losses) + beside))
    cost = f"{loss[0]:.4f} bits per character before, {loss[1]:.4f} after, on {MEASURED:,} {kind} that it wrote itself"
    return [*facts, ("rounding of the weights to 16 bits", cost)]


def in_script(data: Any) -> Markup:
    """Return JSON that cannot close its enclosing script element."""
    return Markup(to_json(data).replace("<", "\\u003c"))


def template(name: str, folder: Path = HERE) -> Template:
    """Return a template of a folder; it may include files of this one."""
    loader = FileSystemLoader([folder, HERE])
    return Environment(loader=loader, autoescape=True, trim_blocks=True).get_template(name)


def render(scores: Sequence[Score], model: str) -> str:
    """Return one HTML page: a table if there are several texts, then each text coloured, with the bits as titles."""
    shares = [level / (LEVELS - 1) for level in range(LEVELS)]  # of the darkest colour
    return template("surprisal.html").render(scores=scores, model=model, shares=shares, width=BITS_PER_LEVEL)
