"""Exact evaluation: every transition of a split, or of any text, scored once, the state carried."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from src.baselines import baselines, basis
from src.config.schema import WINDOW_KEYS, DataConfig, EvaluationDataConfig
from src.data.batching import LineSplit, TextSplit, Windows, evaluation_windows
from src.data.corpus import Corpus, open_corpus
from src.data.tasks import target_mask
from src.errors import UnknownCharacter, UserError
from src.files import read_json, write_json
from src.inference.generate import NOT_FINITE
from src.inference.options import run_of
from src.metrics import Tally, perplexity
from src.models.language_model import LanguageModel, State, WindowLoss, sequences_right, window_loss
from src.process import complain

if TYPE_CHECKING:
    from src.inference.load import TrainedModel


def losses(model: LanguageModel, windows: Windows) -> Iterator[tuple[WindowLoss, Tensor]]:
    """Yield each window's loss and whether each first guess was right (time, batch); the state is carried."""
    state: State = None
    for window in windows:
        with torch.inference_mode():
            logits, state = model(window.inputs, None if window.starts else state)
            loss, hits = window_loss(logits, window.targets, "mean"), logits.argmax(-1) == window.targets
            loss.allowed = window.allowed
        yield loss, hits  # outside of the mode, which would else be set in the caller too


def evaluate(model: LanguageModel, windows: Windows) -> dict[str, Any]:
    """Return the metrics of all targets, their mean nats by position (None: no target), and what only a task has."""
    tally, nats, counts = Tally(), np.zeros(0), np.zeros(0, np.int64)  # sums first, divides once
    symbols: Counter[int] = Counter()  # targets, and those that were the first guess
    right: Counter[int] = Counter()
    for loss, hits in losses(model, windows):
        by_position = loss.losses.double().sum(1).numpy()
        if (more := len(by_position) - len(nats)) > 0:
            nats, counts = np.pad(nats, (0, more)), np.pad(counts, (0, more))
        nats[: len(by_position)] += by_position
        counts[: len(by_position)] += loss.real.sum(1).numpy()
        tally.add(float(by_position.sum()), float(hits.sum()), int(loss.characters))
        if loss.allowed is not None:
            tally.add_sequences(*sequences_right(loss.logits, loss.allowed))
            symbols.update(loss.targets[loss.real].tolist())
            right.update(loss.targets[hits].tolist())
    metrics = {name.partition("/")[2]: value for name, value in tally.metrics("split").items()}
    mean = [float(total / count) if count else None for total, count in zip(nats, counts, strict=True)]
    by_symbol = {"by_symbol": {id: right[id] / count for id, count in sorted(symbols.items())}} if symbols else {}
    return {**metrics, **by_symbol, "characters": tally.characters, "loss_by_position": mean}


def evaluate_run(
    trained: TrainedModel, split: str | None, changes: EvaluationDataConfig | None = None, model: str | None = None
) -> dict[str, Any]:
    """Return the content of evaluation_<split>.json.

    A split of None is `val`, or `train` if there is no `val`; `changes` are keys of the `data` group that differ from
    the run's; `model` is another implementation for the same weights, whose numbers are under `also`.
    """
    run = run_of(trained.path)
    try:
        record = read_json(run / "run.json") if run else {}
        trained_on = (record.get("data_provenance") or {}).get("sha256")
    except (OSError, ValueError, AttributeError) as error:
        remedy = "restore it, or name a copy of the checkpoint (checkpoint=FILE)"
        raise UserError(f"{run}/run.json is damaged ({error}); {remedy}") from error
    changed = {key: value for key, value in vars(changes or EvaluationDataConfig()).items() if value is not None}
    if "path" in changed or "paths" in changed:
        changed = {"path": None, "paths": None} | changed
    own = trained.config.data
    data = dataclasses.replace(own, **changed)
    other = trained.in_implementation(model or trained.config.model.name)
    corpus = own_corpus(trained, data)
    split = split or ("val" if "val" in corpus.splits else "train")
    # The state is carried through a text, which is one stream; the items of a list may be side by side
    seq_len, batch_size = data.window
    streams = batch_size if isinstance(corpus.splits[split], LineSplit) else 1
    windows = evaluation_windows(corpus.splits[split], seq_len, streams, seed=trained.config.seed or 0)
    models = [trained] if other is trained else [trained, other]
    found, *others = [{"model": one.config.model.name, **evaluate(one.model, windows)} for one in models]
    if "by_symbol" in found:
        found["by_symbol"] = {corpus.vocabulary.symbols[id]: share for id, share in found["by_symbol"].items()}
    partial = basis(corpus, split) if split != "train" else None
    sha256 = corpus.provenance.get("sha256")
    return {
        "split": split,
        **found,
        "also": [{**one, "difference": one["cross_entropy"] - found["cross_entropy"]} for one in others],
        # on `train` the n-grams would be scored on the text that they were counted on
        "baselines": {"uniform": math.log2(len(corpus.vocabulary))} if split == "train" else baselines(corpus, split),
        "checkpoint": trained.path.stem,
        **trained.progress,
        "text": {"sha256": sha256, "changed": None if trained_on is None else trained_on != sha256},
        "data": {k: v for k, v in changed.items() if k not in WINDOW_KEYS and v != getattr(own, k)},
        "notes": [*corpus.notes, *([partial] if partial else [])],
    }


def keep(trained: TrainedModel, result: dict[str, Any]) -> Path | None:
    """Write evaluation_<split>.json into the run's folder; None: the model is in no run, or the data is not the run's.

    Reports and studies read the file as what the run reaches on its own data. A text that moved has the same checksum.
    """
    run, changed = run_of(trained.path), result["text"]["changed"]
    file = run and run / f"evaluation_{result['split']}.json"
    if file and (result["data"] if changed is None else changed):
        complain(f"note: this is not the data that the run was trained on, so {file} was not written")
        return None
    try:
        if file:
            write_json(file, result)
    except OSError as error:  # a folder of somebody else, a full disk: the numbers are right all the same
        complain(f"note: {file} was not written ({error.strerror})")
        return None
    return file


def own_corpus(trained: TrainedModel, data: DataConfig) -> Corpus:
    """Open the text of a run with the ids of its model: as training opened it, or encoded anew if the ids differ."""
    if data.split is not None and (data.val_path or data.test_path):  # a held-out text replaces its share
        data = dataclasses.replace(data, split=None if data.val_path else data.split[:2])
    if trained.config.init_from is None:
        with contextlib.suppress(UnknownCharacter):  # the model may know what the training split now lacks
            corpus = open_corpus(data)
            if corpus.vocabulary == trained.vocabulary:
                return corpus
    data = dataclasses.replace(data, unknown="error" if trained.vocabulary.unknown_id is None else "map")
    try:
        return open_corpus(data, trained.vocabulary)
    except UnknownCharacter as error:
        run = run_of(trained.path) or trained.path
        further = f"train on from it with python -m src.train init_from={run} data.unknown=extend"
        raise UnknownCharacter(error.what, f"leave them out of the text, or {further}") from None


@dataclasses.dataclass(frozen=True)
class Score:
    """The bits of every scored symbol of a text, in order."""

    name: str  # of the file, or `text`
    given: bytes  # what is read and not scored: the first symbol; nothing for a list of items
    symbols: list[bytes]  # the others; single bytes if the model reads bytes
    bits: list[float | None]  # -log2 p(symbol | all before it) of each; None for one that is no target of a task
    characters: int  # how many were scored; of a list, each item's and one for its end
    total: float  # of the bits
    cross_entropy: float  # nats per character
    bits_per_character: float
    perplexity: float
    accuracy: float  # the share that was the model's first guess

    def readable(self) -> Iterator[tuple[str, float | None]]:
        """Yield (character, bits): the bytes of a character together; None if the character was given."""
        decoder, bits = codecs.getincrementaldecoder("utf-8")("replace"), 0.0
        if given := decoder.decode(self.given):
            yield given, None
        for symbol, cost in zip(self.symbols, self.bits, strict=True):
            bits += cost or 0.0
            if text := decoder.decode(symbol):
                yield text, None if cost is None else bits
                bits = 0.0
        if rest := decoder.decode(b"", final=True):
            yield rest, bits

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for JSON, with the keys of evaluation_<split>.json; `text` has pairs (character, bits)."""
        names = ("name", "characters", "total", "cross_entropy", "bits_per_character", "perplexity", "accuracy", "bits")
        return {**{name: getattr(self, name) for name in names}, "text": [list(pair) for pair in self.readable()]}


def score_ids(trained: TrainedModel, ids: np.ndarray, name: str) -> Score:
    """Score ids (length,), from a zero state: all but the first, of a list each item and its end, of a task targets."""
    decode, boundary = trained.vocabulary.decode_bytes, trained.boundary_id
    if boundary is None:
        texts, given = [ids] if len(ids) > 1 else [], decode(ids[:1])
    else:
        parts = np.split(ids, np.flatnonzero(ids == boundary))  # each but the first begins with a boundary
        items = [part[part != boundary] for part in parts]
        texts, given = [np.pad(item, 1, constant_values=boundary) for item in items if len(item)], b""
    if not texts:
        what = "one character, which is given" if boundary is None else "line breaks only"
        raise UserError(f"{name} has {what}; at least one more character is needed to be scored")
    nats, correct, data = [], 0, trained.config.data
    wanted = [target_mask(data, trained.vocabulary, text)[1:] if data.is_task else np.full(len(text) - 1, True)
              for text in texts]  # fmt: skip
    targets = np.concatenate(wanted)
    if not targets.any():
        raise UserError(f"{name} has no target of data={data.name}: see src/data/tasks.py for its sequences")
    for text, scored in zip(texts, wanted, strict=True):
        windows = evaluation_windows(TextSplit(name, text), trained.config.data.window[0])
        for loss, hits in losses(trained.model, windows):
            nats.append(loss.losses[:, 0].double().numpy())
            correct += int(hits[:, 0].numpy()[scored[: len(hits)]].sum())
            scored = scored[len(hits) :]
    costs = np.concatenate(nats) / np.log(2) + 0.0  # + 0.0: a certain character costs 0, not -0
    bits = [cost if real else None for cost, real in zip(costs.tolist(), targets.tolist(), strict=True)]
    symbols = [decode([id]) for id in range(len(trained.vocabulary))]
    following = [symbols[id] for text in texts for id in text[1:]]
    total, count = math.fsum(costs[targets]), int(targets.sum())
    if not math.isfinite(total):
        raise UserError(f"{name}: {NOT_FINITE}")
    mean = total / count * math.log(2)
    return Score(name, given, following, bits, count, total, mean, total / count, perplexity(mean), correct / count)
