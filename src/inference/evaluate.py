"""A run's exact evaluation: its text opened again, its model run over a split, the floor and the record beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.baselines import baselines, basis
from src.config.schema import DataConfig
from src.data.corpus import Corpus, open_corpus
from src.errors import DataError, UnknownCharacter
from src.files import write_atomic
from src.inference.locate import run_of
from src.inference.score import evaluate, split_windows, told_for_a_model
from src.inference.trained_model import TrainedModel, in_implementation
from src.training.run_record import Record


def evaluate_run(
    trained: TrainedModel, split: str | None, changes: Mapping[str, Any] | None = None, model: str | None = None
) -> dict[str, Any]:
    """Return the content of evaluation_<split>.json.

    Args:
        trained: the model, in the implementation that it was trained in.
        split: `train`, `val` or `test`; None is `val`, or `train` where there is no `val`.
        changes: keys of the `data` group that differ from the run's: where the text lies, seq_len, batch_size.
        model: an implementation to run the same weights in too; its numbers stand under `also`.

    Raises:
        DataError: a text that is not there, or a split that it lacks.
        UserError: weights that mean nothing in that implementation.
    """
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    data = dataclasses.replace(trained.config.data, **given)
    own = model in (None, trained.config.model.name)
    models = [trained] if own else [trained, in_implementation(trained, str(model))]
    corpus = own_corpus(trained, data)
    split = split or ("val" if "val" in corpus.splits else "train")
    windows = split_windows(corpus.splits[split], data.seq_len, data.batch_size)
    found, *others = [{"model": one.config.model.name, **evaluate(one.model, windows).to_plain()} for one in models]
    partial = basis(corpus, split) if split != "train" else None
    return {
        "split": split,
        **found,
        "also": [{**other, "difference": other["cross_entropy"] - found["cross_entropy"]} for other in others],
        "baselines": floor(corpus, split),
        "checkpoint": trained.path.stem,
        **trained.progress,
        "text": {"sha256": corpus.provenance.get("sha256"), "changed": has_changed(corpus, run_of(trained.path))},
        "notes": [*corpus.notes, *([partial] if partial else [])],
    }


def keep(trained: TrainedModel, result: Mapping[str, Any]) -> Path | None:
    """Write evaluation_<split>.json into the folder of the model's run; None where the model lies in none.

    Raises:
        OSError: the folder cannot be written to.
    """
    run = run_of(trained.path)
    if run is None:
        return None
    path = run / f"evaluation_{result['split']}.json"
    write_atomic(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return path


def own_corpus(trained: TrainedModel, data: DataConfig) -> Corpus:
    """Open the text of a run, in the ids that its model knows.

    It is opened as training opened it, so that what is cached for it is found; where that gives other ids (the text
    has changed, or the run started from another's weights) it is encoded with the model's own vocabulary.

    Raises:
        UnknownCharacter: the model has no symbol for a character, nor one for all that it does not know.
    """
    if data.split is not None and (data.val_path or data.test_path):  # a held-out text of its own replaces its share
        data = dataclasses.replace(data, split=None if data.val_path else data.split[:2])
    with told_for_a_model():
        if not trained.config.init_from:
            with contextlib.suppress(UnknownCharacter):  # to its own train split, perhaps; the model may know them
                corpus = open_corpus(data)
                if corpus.vocabulary == trained.vocabulary:
                    return corpus
        unknown = "map" if trained.vocabulary.unknown_id is not None else "error"
        try:
            return open_corpus(dataclasses.replace(data, unknown=unknown), trained.vocabulary)
        except UnknownCharacter as error:
            run = run_of(trained.path) or trained.path
            further = f"train on from it with python -m src.train init_from={run} data.unknown=extend"
            raise error.with_remedy(f"leave them out of the text, or {further}") from None


def floor(corpus: Corpus, split: str) -> dict[str, float]:
    """What to beat, in bits a character; on `train` the n-grams would be scored on what they were counted on."""
    if split == "train":
        return {"uniform": math.log2(len(corpus.vocabulary))}
    return baselines(corpus, split)


def has_changed(corpus: Corpus, run: Path | None) -> bool | None:
    """Whether the text is another than the one the run was trained on; None where its record does not say."""
    try:
        recorded = Record.read(run).entries["data_provenance"]["sha256"] if run is not None else None
    except (OSError, ValueError, KeyError, DataError):
        return None
    return None if recorded is None else recorded != corpus.provenance.get("sha256")
