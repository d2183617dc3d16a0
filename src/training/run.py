"""One run: check everything (`prepare`), make a folder, train, and record how it ended, whatever happens.

A new run and a resumed one (src/training/resume.py) both go through `prepare` and `train`; the difference is
`checkpoint`. So does a process with rank > 0: its folder is NO_FOLDER, to which nothing is written.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from lightning.pytorch.callbacks import Callback

from src.baselines import baselines, basis
from src.config.checks import check_validations, run_steps, windows_an_epoch
from src.config.run_key import with_absolute_paths
from src.config.schema import Config, DataConfig, to_plain
from src.data.corpus import Corpus, open_corpus
from src.data.datamodule import TextData
from src.data.vocabulary import Vocabulary
from src.errors import RunFailure
from src.files import write_atomic
from src.inference.load import FORMAT
from src.inference.options import check_monitor, check_prompt, check_size
from src.models.language_model import build_model
from src.training.checkpoint import Checkpoint
from src.training.console import ONLY_IN_THE_FILE, logging_to, say_end, say_start
from src.training.distributed import drawn_seed, join, peer_is_gone, rank, world_size
from src.training.init_from import check_growth, source_of, start_from
from src.training.machine import check_machine, keep_memory, threads_for, use_threads
from src.training.module import LanguageModule
from src.training.run_record import NO_FOLDER, Record, locked, new_folder, now, provenance
from src.training.signals import Interrupted
from src.training.trainer import Built, build_trainer

WINDOW_KEYS = ("seq_len", "batch_size", "offset", "reset", "evaluation_streams")  # of `data`; the others are the text's
log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """All that a run needs before it has a folder."""

    config: Config  # resolved: a seed, absolute paths, the number of processes
    corpus: Corpus
    data: TextData
    module: LanguageModule
    steps_an_epoch: int
    init_from: Mapping[str, Any] | None = None  # run.json's entry on the weights it started from


def prepare(config: Config, checkpoint: Checkpoint | None = None) -> Prepared:
    """Check everything, open the text and build the model. The argument stays as it is, and nothing is written.

    Args:
        config: a checked configuration.
        checkpoint: of a run that is resumed; a new run reads `init_from` instead.

    Raises:
        UserError, DataError: the machine lacks what was asked for, or the text cannot be used.
    """
    config = dataclasses.replace(config, trainer=join(config.trainer))
    check_machine(config.trainer)
    if config.seed is None:
        config = dataclasses.replace(config, seed=drawn_seed())
    source = source_of(config) if checkpoint is None else None
    start = checkpoint.ours.get("init_from") if checkpoint else None
    known = source.vocabulary if source else Vocabulary.from_plain(start["vocabulary"]) if start else None
    corpus = open_text(config.data, known)
    check_prompt(config.callbacks.text_samples, corpus.vocabulary)
    check_monitor(config, corpus.splits)
    config = with_absolute_paths(config)  # only now: the errors above name paths as the user typed them
    assert config.seed is not None
    if source:
        check_growth(source, corpus.vocabulary, config.data.unknown)
    data = TextData(corpus, **{key: getattr(config.data, key) for key in WINDOW_KEYS}, seed=config.seed)
    processes = world_size(config.trainer)
    data.limit = windows_an_epoch(config.trainer, len(data.windows(world_size=processes)))
    check_validations(config.trainer, data.limit)
    check_size(config.model, len(corpus.vocabulary))
    threads = threads_for(
        config.trainer.threads, config.model.hidden_size, config.trainer.devices if processes > 1 else 1
    )
    if checkpoint and config.trainer.threads == "auto":
        threads = checkpoint.ours["progress"]["threads"]  # other sums of other threads would be another run
    use_threads(threads)
    keep_memory()
    torch.manual_seed(config.seed)
    model = build_model(config.model, len(corpus.vocabulary))  # nothing draws from torch's generator before it
    if rank() > 0:
        torch.manual_seed(config.seed + rank())  # dropout must not repeat itself in another process's columns
    if source:
        start = start_from(model, source, corpus.vocabulary)
    steps_an_epoch = math.ceil(data.limit / config.trainer.accumulate_grad_batches)
    vocabulary = corpus.vocabulary.to_plain()
    identity = {"format": FORMAT, "config": to_plain(config), "vocabulary": vocabulary, "corpus": corpus.key}
    module = LanguageModule(
        model, config, run_steps(config.trainer, steps_an_epoch), identity | {"init_from": start}
    )
    return Prepared(config, corpus, data, module, steps_an_epoch, start)


def open_text(data: DataConfig, vocabulary: Vocabulary | None = None) -> Corpus:
    """Open the text of a configuration; with a vocabulary of its own or a given one."""
    given = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    return open_corpus(vocabulary=vocabulary, **{key: value for key, value in given.items() if key not in WINDOW_KEYS})


def fit(config: Config, command: Mapping[str, Any], folder: Path | None = None, also: Sequence[Callback] = ()) -> Path:
    """Train a new run and return its folder; every user error is found before the folder exists.

    Args:
        config: a checked configuration.
        command: entries for the record: `command`, `overrides`, `key`.
        folder: the run's folder, which is made; None makes a new one under `config.runs`.
        also: callbacks that are called after those of the configuration (a search's pruner).

    Raises:
        UserError, DataError: see `prepare`.
        Interrupted: a signal has stopped the run, and its state is saved.
    """
    prepared = prepare(config)
    if rank() > 0:
        record = Record(NO_FOLDER, {})
    else:
        if folder is None:
            folder = new_folder(Path(config.runs) / prepared.config.name)
        else:
            folder.mkdir(parents=True)
        write_config(folder, prepared.config)
        record = Record(folder, {"status": "running", **describe(prepared), **command, **provenance()})
    with locked(record.folder), logging_to(record.folder):
        return train(prepared, record, also=also)


def train(
    prepared: Prepared, record: Record, checkpoint: Checkpoint | None = None, also: Sequence[Callback] = ()
) -> Path:
    """Run the trainer, from the start or from a checkpoint, and write into the record how it ended."""
    folder = record.folder
    built = build_trainer(prepared.config, folder, prepared.corpus, prepared.steps_an_epoch)
    built.trainer.callbacks.extend(also)  # type: ignore[attr-defined]
    with built.signals.listening():
        try:
            record.update()
            if rank() == 0:
                built.scalars.constant = {f"baseline/{name}": bits for name, bits in record.entries["baselines"].items()}
                say_start(record, prepared.corpus)
            path = checkpoint.path if checkpoint else None
            built.trainer.fit(prepared.module, datamodule=prepared.data, ckpt_path=path, weights_only=True)
        except BaseException as error:
            return _ended_by(error, prepared, record, built)
    finish(record, "done", prepared, built)
    if rank() == 0:
        say_end(record)
    return folder


def _ended_by(error: BaseException, prepared: Prepared, record: Record, built: Built) -> Path:
    """Record an end other than the planned one, and raise what makes the exit code of the process."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        finish(record, "stopped", prepared, built)
        saved = (record.folder / "checkpoints" / "last.ckpt").exists()
        way = "to go on" if saved else "no checkpoint was written, so this begins anew"
        log.info("stopped at step %d; %s: python -m src.train resume=%s", record.entries["steps"], way, record.folder)
        if isinstance(error, Interrupted) and error.signum is None:
            return record.folder
    elif built.trainer.world_size > 1 and peer_is_gone(error):
        finish(record, "stopped", prepared, built)
        if rank() > 0:
            sys.exit(1)
        raise RunFailure(
            f"another process of the run has died; to go on: python -m src.train resume={record.folder}"
        ) from error
    else:
        finish(record, "failed", prepared, built, {"type": type(error).__name__, "message": str(error)})
        log.error("%s", traceback.format_exc().rstrip(), extra=ONLY_IN_THE_FILE)  # Python prints it to the console
    if rank() > 0 and isinstance(error, Interrupted | RunFailure):
        sys.exit(0)  # all processes have agreed on it, and process 0 reports it
    raise error


def finish(
    record: Record, status: str, prepared: Prepared, built: Built, error: Mapping[str, str] | None = None
) -> None:
    """Write into the record how the run ended, and what it had reached."""
    trainer, metrics = built.trainer, built.metrics
    record.update(
        status=status,
        finished=now(),
        seconds=round(metrics.seconds, 3),
        steps=trainer.global_step,
        epochs=trainer.fit_loop.epoch_progress.current.completed,
        characters=int(prepared.module.characters),
        metrics={"final": {**built.scalars.latest, **metrics.final}, "best": metrics.best},
        error=error,
    )


def write_config(folder: Path, config: Config) -> None:
    """Write config.yaml."""
    write_atomic(folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return the record's entries on a run before its first step."""
    config, corpus = prepared.config, prepared.corpus
    return {
        "name": config.name,
        "experiment": config.experiment,
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "parameters": sum(p.numel() for p in prepared.module.parameters() if p.requires_grad),
        "vocab_size": len(corpus.vocabulary),
        "baselines": baselines_to_beat(corpus),
        "baselines_basis": basis(corpus),
        "windows": prepared.data.described(),
        "data_provenance": corpus.provenance,
        "init_from": prepared.init_from,
        "error": None,
    }


def baselines_to_beat(corpus: Corpus) -> dict[str, float]:
    """Return bits per character of a uniform guess, and of counted n-grams if there is a `val` split."""
    if "val" not in corpus.splits:
        return {"uniform": math.log2(len(corpus.vocabulary))}
    known = baselines(corpus)
    return {name: max(0.0, known[name]) for name in ("uniform", "unigram", "ngram_5") if name in known}
