"""What `python -m src.explain` explains: a network, trained or not, and a text; and the forms in which it is shown."""

from __future__ import annotations

import shlex
from base64 import b64encode
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from src.config.schema import IMPLEMENTATIONS, ExplainConfig, ExplainOptions
from src.data.batching import BOUNDARY
from src.data.vocabulary import Vocabulary, label
from src.errors import UserError
from src.inference.load import load
from src.inference.page import in_script, template
from src.worked_example.bptt_example import MOST_STEPS, Problem, build_problem, compute, shown_units, untrained
from src.worked_example.document import as_markdown, as_text, number, page

HERE = Path(__file__).parent


@dataclass
class Lesson:
    """A problem, its input and target text, and the source of its weights."""

    problem: Problem
    input: str  # what is read in the steps that are explained, visible
    target: str
    command: list[str]  # the training that starts from these weights; empty for a trained network
    source: str  # the checkpoint, where the network is trained
    averaged: bool = False  # the network was trained on the mean over the steps, not on their sum


def lesson_of(config: ExplainConfig) -> Lesson:
    """Return what a checked configuration describes; UserError for other equations, or a text that does not fit."""
    options, path = config.explain, config.path
    pair: tuple[str | None, str | None] = ("hello", "ohlol")
    command: list[str] = []
    source, averaged = "", False
    if path is not None:
        trained = load(path, at=config.at, precision="64-true", trust=config.trust)
        if trained.config.model.name not in IMPLEMENTATIONS:
            what = f"its equations are those of {trained.config.model.name}; explain knows the networks of"
            raise UserError(f"{path}: {what} {', '.join(IMPLEMENTATIONS)}")
        if trained.config.data.is_task:
            raise UserError(f"{path}: explain knows texts, and data={trained.config.data.name} is a task")
        pair = trained.config.data.input, trained.config.data.target
        averaged = trained.config.loss.over_time == "mean"
        vocabulary, model, source = trained.vocabulary, trained.in_implementation("manual").model, str(trained.path)
    word = options.input or pair[0] or "hello"
    target = options.target or (pair[1] if word == pair[0] else None)
    if path is not None and target is None and trained.boundary_id is not None:
        word = f"{BOUNDARY}{word.strip(BOUNDARY).rpartition(BOUNDARY)[2]}{BOUNDARY}"  # its last item, whole
    if path is None:
        texts = set(word + (target or ""))
        symbols = "ehlo" if texts <= set("ehlo") else "".join(sorted(texts))  # the tutorial's, where it is enough
        vocabulary = Vocabulary.of(symbols)
        model = untrained(symbols, options.hidden_size, options.num_layers, options.nonlinearity, options.seed)
        command = training_command(options, symbols, word, target or word[1:])
    encode = trained.ids if path is not None else lambda text, key: vocabulary.encode(text)
    ids = encode(word, "explain.input").tolist()
    targets = ids[1:] if target is None else encode(target, "explain.target").tolist()
    ids = ids[:-1] if target is None else ids
    if len(ids) != len(targets) or not ids:
        have = f"explain.input has {len(ids)} {vocabulary.kind} and explain.target {len(targets)}"
        raise UserError(f"{have}; each step needs one target")
    labels = [*map(label, vocabulary.symbols)]
    problem = build_problem(model, labels, ids, targets)
    dots = "..." * (len(problem.earlier) > 0)
    visible = [dots + "".join(labels[i] for i in some[-MOST_STEPS:]) for some in (ids, targets)]
    return Lesson(problem, visible[0], visible[1], command, source, averaged)


def training_command(options: ExplainOptions, symbols: str, word: str, target: str) -> list[str]:
    """Return the command of the training that starts from the untrained network, without what is default."""
    size = f"model.hidden_size={options.hidden_size}"
    command = ["python", "-m", "src.train", "model=manual", "model.readout=linear", size]
    for key, given, default in (
        ("model.num_layers", options.num_layers, 1), ("model.nonlinearity", options.nonlinearity, "tanh"),
        ("data.input", word[: len(target)], "hello"), ("data.target", target, "ohlol"),
        ("data.symbols", symbols, "ehlo"),
    ):  # fmt: skip
        command += [f"{key}={given}"] * (given != default)
    return [shlex.quote(word) for word in [*command, f"seed={options.seed}"]]


def render(lesson: Lesson, options: ExplainOptions) -> str:
    """Return the lesson in the chosen format."""
    if options.format in ("html", "svg"):
        return as_html(lesson, options) if options.format == "html" else as_svg(lesson)
    blocks = page(lesson, options.level == "full")
    return as_markdown(blocks) if options.format == "markdown" else as_text(blocks)


def as_html(lesson: Lesson, options: ExplainOptions) -> str:
    """Return one page that needs no other file and no network; an untrained network with other depths and seeds too."""
    p, networks = lesson.problem, [plain(lesson.problem, None)]
    if lesson.command:
        ids = [*p.earlier.tolist(), *p.x.argmax(1).tolist()]
        targets = [0] * len(p.earlier) + p.targets.tolist()
        networks = []
        for layers, seed in product(sorted({1, 2, 3, options.num_layers}), sorted({*range(5), options.seed})):
            model = untrained(p.symbols, options.hidden_size, layers, options.nonlinearity, seed)
            networks.append(plain(build_problem(model, p.symbols, ids, targets), seed))
    chosen = (len(p.W), options.seed if lesson.command else None)
    data = {
        "input": lesson.input, "target": lesson.target, "symbols": p.symbols, "ids": p.x.argmax(1).tolist(),
        "targets": p.targets.tolist(), "nonlinearity": p.nonlinearity, "readout": p.has_readout,
        "earlier": len(p.earlier), "source": lesson.source, "command": bool(lesson.command),
        "averaged": lesson.averaged, "networks": networks,
        "initial": [(one["layers"], one["seed"]) for one in networks].index(chosen),
    }  # fmt: skip
    return template("lesson.html.jinja", HERE).render(title=f"{lesson.input} → {lesson.target}", data=in_script(data))


def plain(p: Problem, seed: int | None) -> dict[str, Any]:
    """Return a network as JSON: the weights, as base64 of little-endian floats, and h_0 of each layer."""
    weights = torch.cat([weight.reshape(-1) for weight in p.parameters().values()])
    kind = "f4" if torch.equal(weights.float().double(), weights) else "f8"
    stored = b64encode(weights.numpy().astype(f"<{kind}").tobytes()).decode()
    h_0 = [h.tolist() for h in p.h_0]
    return {"layers": len(p.W), "hidden": len(p.b[0]), "seed": seed, "kind": kind, "weights": stored, "h_0": h_0}


def as_svg(lesson: Lesson) -> str:
    """Return the figure of the two paths to h_1 of the layer below the top one: delta_1^2 of the page, in 3 layers."""
    p = lesson.problem
    n, l = compute(p), max(0, len(p.W) - 2)  # noqa: E741
    units, steps = shown_units(n)[l], min(2, len(p.x))
    digits = 4 if len(units) <= 6 else 3  # what fits
    above, later = n.above[l][0][units], n.later[l][0][units]
    weights = lesson.command[-1] if lesson.command else "a trained network"
    cut = "" if len(units) == len(p.b[l]) else f", units {', '.join(f'{i + 1}' for i in units)}"
    parts = {"above": above, "later": later, "both": above + later}
    return template("two_paths.svg.jinja", HERE).render(
        title=f"The two paths of the error to h₁{'¹²³⁴⁵⁶⁷⁸⁹'[l] if len(p.W) > 1 else ''}",
        about=f"“{lesson.input}” → “{lesson.target}”, {weights}{cut}; L = Σ Lₜ = {number(n.losses.sum(), 4)}",
        layers=len(p.W), focus=l + 1, steps=steps, more=len(p.x) > steps, readout=p.has_readout,
        losses=[number(loss) for loss in n.losses], read=[p.symbols[int(x_t.argmax())] for x_t in p.x],
        **{name: f"({', '.join(number(value, digits) for value in values)})" for name, values in parts.items()},
    )  # fmt: skip
