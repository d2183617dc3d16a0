"""Exact evaluation: every transition of a split scored once, beside the baselines and a comparison with the run."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from src.baselines import baselines, basis
from src.config.schema import DataConfig, EvaluationDataConfig
from src.data.batching import Windows
from src.data.corpus import Corpus, open_corpus
from src.errors import UnknownCharacter
from src.files import read_json, write_json
from src.inference.options import run_of
from src.inference.score import losses, remedy_for_a_model, split_windows
from src.inference.trained_model import TrainedModel, in_implementation
from src.metrics import Tally
from src.models.language_model import LanguageModel


def evaluate(model: LanguageModel, windows: Windows) -> dict[str, Any]:
    """Return the metrics of every transition of the windows, and the mean loss (nats) at each position of a window."""
    tally = Tally()  # sums first, divides once
    nats = np.zeros(0)
    counts = np.zeros(0, np.int64)
    for loss, hits in losses(model, windows):
        by_position = loss.losses.double().sum(1).numpy()
        if (more := len(by_position) - len(nats)) > 0:
            nats, counts = np.pad(nats, (0, more)), np.pad(counts, (0, more))
        nats[: len(by_position)] += by_position
        counts[: len(by_position)] += loss.real.sum(1).numpy()
        tally.add(float(by_position.sum()), float(hits.sum()), int(loss.characters))
    metrics = {name.partition("/")[2]: value for name, value in tally.metrics("split").items()}
    mean = (nats / np.maximum(counts, 1)).tolist()
    return {**metrics, "characters": tally.characters, "loss_by_position": mean}


def evaluate_run(
    trained: TrainedModel, split: str | None, changes: EvaluationDataConfig | None = None, model: str | None = None
) -> dict[str, Any]:
    """Return the content of evaluation_<split>.json.

    Args:
        trained: the model, in the implementation that it was trained in.
        split: `train`, `val` or `test`; None is `val`, or `train` if there is no `val`.
        changes: keys of the `data` group that differ from the run's.
        model: another implementation to evaluate the same weights in; its numbers are under `also`.

    Raises:
        DataError: a text that is not there, or a split that it lacks.
        UserError: weights that do not move to that implementation.
    """
    changed = {key: value for key, value in vars(changes or EvaluationDataConfig()).items() if value is not None}
    data = dataclasses.replace(trained.config.data, **changed)
    other = in_implementation(trained, model or trained.config.model.name)
    corpus = own_corpus(trained, data)
    split = split or ("val" if "val" in corpus.splits else "train")
    windows = split_windows(corpus.splits[split], data.seq_len, data.batch_size)
    models = [trained] if other is trained else [trained, other]
    found, *others = [{"model": one.config.model.name, **evaluate(one.model, windows)} for one in models]
    partial = basis(corpus, split) if split != "train" else None
    return {
        "split": split,
        **found,
        "also": [{**one, "difference": one["cross_entropy"] - found["cross_entropy"]} for one in others],
        # on `train` the n-grams would be scored on the text that they were counted on
        "baselines": {"uniform": math.log2(len(corpus.vocabulary))} if split == "train" else baselines(corpus, split),
        "checkpoint": trained.path.stem,
        **trained.progress,
        "text": {"sha256": corpus.provenance.get("sha256"), "changed": has_changed(corpus, run_of(trained.path))},
        "notes": [*corpus.notes, *([partial] if partial else [])],
    }


def keep(trained: TrainedModel, result: dict[str, Any]) -> Path | None:
    """Write evaluation_<split>.json into the folder of the model's run; None if the model is in no run.

    Raises:
        OSError: the folder cannot be written to.
    """
    if (run := run_of(trained.path)) is None:
        return None
    write_json(path := run / f"evaluation_{result['split']}.json", result)
    return path


def own_corpus(trained: TrainedModel, data: DataConfig) -> Corpus:
    """Open the text of a run with the ids of its model.

    It is opened as training opened it, so that it is found in the cache. If that gives other ids (the text has
    changed, or the run started from another's weights), it is encoded with the model's vocabulary.

    Raises:
        UnknownCharacter: the model has no symbol for a character, and no unknown symbol.
    """
    if data.split is not None and (data.val_path or data.test_path):  # a held-out text replaces its share
        data = dataclasses.replace(data, split=None if data.val_path else data.split[:2])
    with remedy_for_a_model():
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
            raise error.with_remedy(f"leave them out of the text, or {further}") from None


def has_changed(corpus: Corpus, run: Path | None) -> bool | None:
    """Return whether the text is not the one that the run was trained on; None if the run's record does not say."""
    try:
        recorded = read_json(run / "run.json")["data_provenance"]["sha256"] if run is not None else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return None if recorded is None else recorded != corpus.provenance.get("sha256")
