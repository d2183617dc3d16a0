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
from torch import nn

from src.baselines import baselines, basis
from src.config.schema import Config, to_plain
from src.data.corpus import Corpus, open_corpus
from src.data.datamodule import TextData
from src.data.vocabulary import Vocabulary
from src.errors import RunFailure, UserError
from src.files import write_atomic
from src.inference.load import FORMAT, TrainedModel, implementation_config, load
from src.models.convert import Layer, convert_, read_layers, write_layers
from src.models.gated import Gated
from src.models.language_model import LanguageModel, build_model
from src.training.checkpoint import Checkpoint
from src.training.console import ONLY_IN_THE_FILE, logging_to, say_end, say_start
from src.training.distributed import drawn_seed, join, peer_is_gone, rank, world_size
from src.training.machine import (
    check_machine,
    check_monitor,
    check_prompt,
    check_size,
    keep_memory,
    threads_for,
    use_threads,
)
from src.training.module import LanguageModule
from src.training.run_record import NO_FOLDER, Record, locked, new_folder, now, provenance
from src.training.signals import Interrupted
from src.training.trainer import Built, build_trainer

SIZES = ("num_layers", "hidden_size", "nonlinearity", "readout")  # of `model`, fixed by the weights of `init_from`
log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """All that a run needs before it has a folder."""

    config: Config  # resolved: a seed, absolute paths, the number of processes
    corpus: Corpus
    data: TextData
    module: LanguageModule
    steps_an_epoch: int


def prepare(config: Config, checkpoint: Checkpoint | None = None) -> Prepared:
    """Check everything, open the text and build the model. The argument stays as it is, and nothing is written.

    A new run, without a checkpoint, reads `init_from`. Raises UserError if the machine lacks what was asked for, the
    text cannot be used, or the weights do not fit.
    """
    config = dataclasses.replace(config, trainer=join(config.trainer))
    check_machine(config.trainer)
    seed = drawn_seed() if config.seed is None else config.seed
    config = dataclasses.replace(config, seed=seed)
    source = source_of(config) if checkpoint is None else None
    start = checkpoint.content["unroll"].get("init_from") if checkpoint else None
    known = source.vocabulary if source else Vocabulary.from_plain(start["vocabulary"]) if start else None
    corpus = open_corpus(config.data, known)
    check_prompt(config.callbacks.text_samples, corpus.vocabulary)
    check_monitor(config, corpus.splits)
    if source:
        check_growth(source, corpus.vocabulary, config.data.unknown)
    config = config.with_absolute_paths()  # only now: the errors above name paths as the user typed them
    data = TextData(corpus, config.data, seed)
    processes, size = world_size(config.trainer), len(corpus.vocabulary)
    data.limit = config.trainer.windows_an_epoch(len(data.windows(world_size=processes)))
    check_size(config.model, size)
    share = config.trainer.devices if processes > 1 else 1
    threads = threads_for(config.trainer.threads, config.model.hidden_size, share)
    if checkpoint and config.trainer.threads == "auto":
        threads = checkpoint.progress["threads"]  # with another number sums have other last digits
    use_threads(threads)
    keep_memory()
    torch.manual_seed(seed)
    model = build_model(config.model, size)  # nothing draws from torch's generator before it
    if rank() > 0:
        torch.manual_seed(seed + rank())  # dropout must not repeat itself in another process's columns
    if source:
        start = start_from(model, source, corpus.vocabulary)
    steps_an_epoch = math.ceil(data.limit / config.trainer.accumulate_grad_batches)
    identity = {"format": FORMAT, "config": to_plain(config), "corpus": corpus.key, "init_from": start}
    identity["vocabulary"] = corpus.vocabulary.to_plain()
    module = LanguageModule(model, config, config.trainer.run_steps(steps_an_epoch), identity)
    return Prepared(config, corpus, data, module, steps_an_epoch)


def fit(config: Config, command: Mapping[str, Any], folder: Path | None = None, also: Sequence[Callback] = ()) -> Path:
    """Train a new run and return its folder; every user error is found before the folder exists.

    Args:
        command: entries for the record: `command`, `overrides`, `key`.
        folder: the run's folder, which is made; None makes a new one under `config.runs`.
        also: callbacks that are called after those of the configuration (a search's pruner).

    Raises:
        UserError, DataError: see `prepare`.
        Interrupted: a signal has stopped the run, and its state is saved.
    """
    prepared = prepare(config)
    record = Record(NO_FOLDER, {})
    if rank() == 0:
        if folder is None:
            folder = new_folder(Path(config.runs) / (config.name or ""))
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
    built = build_trainer(prepared.config, record.folder, prepared.corpus, prepared.steps_an_epoch)
    built.trainer.callbacks.extend(also)  # type: ignore[attr-defined]
    with built.signals.listening():
        try:
            record.update()
            if rank() == 0:
                baselines = record.entries["baselines"]
                built.scalars.constant = {f"baseline/{name}": bits for name, bits in baselines.items()}
                say_start(record, prepared.corpus)
            path = checkpoint.path if checkpoint else None
            built.trainer.fit(prepared.module, datamodule=prepared.data, ckpt_path=path, weights_only=True)
        except BaseException as error:
            _ended_by(error, prepared, record, built)
            return record.folder
    finish(record, "done", prepared, built)
    if rank() == 0:
        say_end(record)
    return record.folder


def _ended_by(error: BaseException, prepared: Prepared, record: Record, built: Built) -> None:
    """Record an end other than the planned one, and raise what makes the exit code of the process."""
    folder, failed = record.folder, None
    gone = built.trainer.world_size > 1 and peer_is_gone(error)
    stopped = gone or isinstance(error, Interrupted | KeyboardInterrupt)
    if not stopped:
        failed = {"type": type(error).__name__, "message": str(error)}
        log.error("%s", traceback.format_exc().rstrip(), extra=ONLY_IN_THE_FILE)  # Python prints it to the console
    finish(record, "stopped" if stopped else "failed", prepared, built, failed)
    if rank() > 0 and (gone or isinstance(error, Interrupted | RunFailure)):
        sys.exit(int(gone))  # on the other reasons all processes have agreed, and process 0 reports them
    if gone:
        raise RunFailure(
            f"another process of the run has died; to go on: python -m src.train resume={folder}"
        ) from error
    if stopped:
        saved = (folder / "checkpoints" / "last.ckpt").exists()
        way = "to go on" if saved else "no checkpoint was written, so this begins anew"
        log.info("stopped at step %d; %s: python -m src.train resume=%s", record.entries["steps"], way, folder)
    if not (isinstance(error, Interrupted) and error.signum is None):  # the time that was given is no error
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
        "baselines": bits_to_beat(corpus),
        "baselines_basis": basis(corpus),
        "windows": prepared.data.described(),
        "data_provenance": corpus.provenance,
        "init_from": prepared.module.identity["init_from"],
        "error": None,
    }


def bits_to_beat(corpus: Corpus) -> dict[str, float]:
    """Return bits per character of a uniform guess, and of counted n-grams if there is a `val` split."""
    if "val" not in corpus.splits:
        return {"uniform": math.log2(len(corpus.vocabulary))}
    known = baselines(corpus)
    return {name: max(0.0, known[name]) for name in ("uniform", "unigram", "ngram_5") if name in known}


# -- init_from: the first weights are those of another run, in the same or another implementation ---------------------


def source_of(config: Config) -> TrainedModel | None:
    """Return the model that a run starts from, or None; UserError for none there, other sizes or other equations."""
    if config.init_from is None:
        return None
    source = load(config.init_from)
    asked, given = config.model, source.config.model
    if asked._target_ != given._target_:
        implementation_config(given, asked.name)
    differ = [key for key in SIZES if getattr(asked, key) != getattr(given, key)]
    if differ:
        weights = f"the weights of init_from={config.init_from} have"
        raise UserError(
            *(f"model.{key}={getattr(asked, key)}: {weights} {getattr(given, key)}; leave it out" for key in differ)
        )
    return source


def check_growth(source: TrainedModel, vocabulary: Vocabulary, unknown: str | None) -> None:
    """Raise UserError if the vocabulary has grown and the hidden state, which is the logits, cannot."""
    if source.config.model.readout == "identity" and len(vocabulary) != len(source.vocabulary):
        raise UserError(
            f"data.unknown={unknown}: the hidden state is the logits here (model.readout=identity), so its size is the "
            "vocabulary's and cannot grow; use data.unknown=error"
        )


def start_from(model: LanguageModel, source: TrainedModel, vocabulary: Vocabulary) -> dict[str, Any]:
    """Make a new model, in place, compute what `source` does; return the entry for run.json.

    Ids keep their meaning. Characters that the new text adds (data.unknown=extend) keep the columns of U and the rows
    of V that were drawn for them; a recurrence class of the user's own raises UserError then.
    """
    known, old = len(source.vocabulary), source.model.to(next(model.parameters()).dtype)
    if known == len(vocabulary):
        convert_(model, old)
    else:
        assert isinstance(model.readout, nn.Linear) and isinstance(old.readout, nn.Linear)
        with torch.no_grad():
            model.readout.weight[:known] = old.readout.weight
            model.readout.bias[:known] = old.readout.bias
            _extend_recurrence(model.recurrence, old.recurrence)
    return {
        "path": str(source.path),
        "model": source.config.model.name,
        **source.progress,
        "vocabulary": source.vocabulary.to_plain(),
        "characters_added": list(vocabulary.symbols[known:]),
    }


def _extend_recurrence(into: nn.Module, source: nn.Module) -> None:
    """Copy a recurrence; U of the first layer keeps the columns of the new characters."""
    if isinstance(into, Gated):
        weights, name = source.state_dict(), "rnn.weight_ih_l0"
        weights[name] = torch.cat([weights[name], into.state_dict()[name][:, weights[name].size(1) :]], dim=1)
        into.load_state_dict(weights)
        return
    try:
        (U, W, b), *above = read_layers(source)
        new = read_layers(into)[0].U
    except TypeError as error:
        raise UserError(
            f"data.unknown=extend: {type(into).__name__} does not say where the weights of new characters belong; "
            "use data.unknown=error, or a model of this project"
        ) from error
    write_layers(into, [Layer(torch.cat([U, new[:, U.size(1) :]], dim=1), W, b), *above])
