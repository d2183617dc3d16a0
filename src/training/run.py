"""Everything a run needs before it has a folder: the machine asked, the text opened, the model built."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import secrets
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
from src.config.schema import Config, to_plain
from src.data.corpus import Corpus, open_corpus
from src.data.datamodule import TextData
from src.data.vocabulary import Vocabulary
from src.errors import RunFailure
from src.files import write_atomic
from src.training.preparation_checks import check_monitor, check_prompt, check_size
from src.models.language_model import build_model
from src.training.checkpoint import FORMAT
from src.training.console import ONLY_IN_THE_FILE, logging_to, say_end, say_start
from src.training.distributed import (
    join_torchrun,
    leave_with_parent,
    peer_is_gone,
    rank,
    told_by_first,
    under_torchrun,
    watch_children,
    world_size,
)
from src.training.init_from import check_growth, source_of, start_from
from src.training.machine import check_machine, keep_memory, threads_for, use_threads
from src.training.module import LanguageModule
from src.training.run_record import Record, locked, new_folder, now, provenance
from src.training.signals import Interrupted
from src.training.trainer import Watched, build_trainer

SEED = "UNROLL_SEED"  # the seed that process 0 has drawn, for the others
WINDOW_WORDS = ("seq_len", "batch_size", "offset", "reset", "evaluation_streams")


class Prepared(NamedTuple):
    """Everything a run needs and no folder yet."""

    config: Config  # resolved: a seed, absolute paths
    corpus: Corpus
    data: TextData
    module: LanguageModule
    steps_an_epoch: int
    init_from: Mapping[str, Any] | None = None  # what the record says of the weights it started from


def prepare(config: Config, threads: int | None = None, stored: Mapping[str, Any] | None = None) -> Prepared:
    """Open the text and build the model. The configuration is not changed; `Prepared.config` is the resolved copy.

    Args:
        config: the whole configuration, checked, plain data.
        threads: how many threads a run that goes on had; None chooses.
        stored: what its checkpoint has under `unroll`; None for a run that begins, which reads `init_from`.

    Raises:
        UserError, DataError: the machine lacks what was asked for, or the text cannot be used.
    """
    join_torchrun(config.trainer)
    if rank() > 0:
        leave_with_parent()
    check_machine(config.trainer)
    if config.seed is None:
        config = dataclasses.replace(config, seed=drawn_seed())
    words = config.data
    source = source_of(config) if stored is None else None
    start = stored.get("init_from") if stored else None
    known = source.vocabulary if source else Vocabulary.from_plain(start["vocabulary"]) if start else None
    corpus = open_corpus(vocabulary=known, **{key: value for key, value in words.items() if key not in WINDOW_WORDS})
    check_prompt(config.callbacks.text_samples, corpus.vocabulary)
    check_monitor(config, corpus.splits)
    config = with_absolute_paths(config)  # only now: a mistake above is told in the user's own words
    if source:
        check_growth(source, corpus.vocabulary, words["unknown"])
    windows_as = {key: words[key] for key in WINDOW_WORDS}
    data = TextData(corpus, **windows_as, seed=config.seed)
    data.limit = windows_an_epoch(config.trainer, len(data.windows(world_size=world_size(config.trainer))))
    check_validations(config.trainer, data.limit)
    check_size(config.model, len(corpus.vocabulary))
    share = config.trainer.devices if world_size(config.trainer) > 1 else 1
    auto = threads_for(config.trainer.threads, config.model.hidden_size, share)
    use_threads(threads or auto)
    keep_memory()
    torch.manual_seed(config.seed)
    model = build_model(config.model, len(corpus.vocabulary))  # nothing draws from torch's generator before it
    if rank() > 0:
        torch.manual_seed(config.seed + rank())  # dropout must not repeat itself in another process's columns
    if source:
        start = start_from(model, source, corpus.vocabulary)
    steps_an_epoch = math.ceil(data.limit / config.trainer.accumulate_grad_batches)
    steps = run_steps(config.trainer, steps_an_epoch)
    words_of = (config.loss.over_time, config.optimizer, config.scheduler)
    module = LanguageModule(model, *words_of, steps, config.checkpoint.mode)
    vocabulary = corpus.vocabulary.to_plain()
    module.identity = {"format": FORMAT, "config": to_plain(config), "vocabulary": vocabulary, "corpus": corpus.key}
    module.identity["init_from"] = start
    return Prepared(config, corpus, data, module, steps_an_epoch, start)


def drawn_seed() -> int:
    """Draw a seed, in process 0. Those that Lightning starts for it find it in their environment, torchrun's ask it."""
    if rank() == 0:
        os.environ[SEED] = str(secrets.randbelow(2**31))
    if under_torchrun():
        os.environ[SEED] = told_by_first(SEED, os.environ.get(SEED, ""))
    return int(os.environ[SEED])


# ---- One training run: text, model, folder, trainer; and whatever happens, a record that says how it ended.

log = logging.getLogger(__name__)


def fit(config: Config, command: Mapping[str, Any], folder: Path | None = None, also: Sequence[Callback] = ()) -> Path:
    """Train a new run and return its folder; everything that can be wrong is found before the folder exists.

    Args:
        config: the whole configuration, checked, plain data.
        command: entries for the record: `command`, `overrides`, `key`.
        folder: the run's folder, which is made; None makes a new one under `config.runs`.
        also: callbacks beside those of the configuration, called after them (a search's pruner).

    Raises:
        UserError, DataError: see `prepare`.
        Interrupted: a signal stopped the run, and its state is saved.
    """
    prepared = prepare(config)
    config = prepared.config
    if rank() > 0:
        return follow(prepared, config)
    if folder is None:
        folder = new_folder(Path(config.runs) / config.name)
    else:
        folder.mkdir(parents=True)
    write_atomic(folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))
    record = Record(folder, {"status": "running", **describe(config, prepared), **command, **provenance()})
    with locked(folder), logging_to(folder):
        return train(prepared, config, folder, record, also=also)


def train(
    prepared: Prepared,
    config: Config,
    folder: Path,
    record: Record,
    checkpoint: Path | None = None,
    also: Sequence[Callback] = (),
) -> Path:
    """Run the trainer, from the start or from a checkpoint, and write into the record how it ended."""
    watched = build_trainer(config, folder, prepared.corpus, prepared.steps_an_epoch)
    with watched.signals.listening():
        return _trained(watched, prepared, folder, record, checkpoint, also)


def _trained(
    watched: Watched,
    prepared: Prepared,
    folder: Path,
    record: Record,
    checkpoint: Path | None,
    also: Sequence[Callback],
) -> Path:
    died = f"another process of the run has died; to go on: python -m src.train resume={folder}"

    def give_up() -> None:
        record.update(status="stopped", finished=now(), steps=watched.trainer.global_step)
        print(died, file=sys.stderr, flush=True)

    ended = watch_children(give_up)
    try:
        record.update()
        say_start(record, prepared.corpus)
        watched.trainer.callbacks.extend(also)  # type: ignore[attr-defined]
        watched.curves.constant = {f"baseline/{name}": bits for name, bits in record.entries["baselines"].items()}
        watched.trainer.fit(prepared.module, datamodule=prepared.data, ckpt_path=checkpoint, weights_only=True)
    except (Interrupted, KeyboardInterrupt) as why:
        finish(record, "stopped", prepared, watched)
        kept = (folder / "checkpoints" / "last.ckpt").exists()
        way = "to go on" if kept else "no checkpoint was written, so this begins anew"
        log.info("stopped at step %d; %s: python -m src.train resume=%s", record.entries["steps"], way, folder)
        if isinstance(why, Interrupted) and why.signum is None:
            return folder
        raise
    except BaseException as error:
        if peer_is_gone(error) and watched.trainer.world_size > 1:
            finish(record, "stopped", prepared, watched)
            raise RunFailure(died) from error
        finish(record, "failed", prepared, watched, {"type": type(error).__name__, "message": str(error)})
        log.error("%s", traceback.format_exc().rstrip(), extra=ONLY_IN_THE_FILE)  # the console gets it from Python
        raise
    finally:
        ended.set()
    finish(record, "done", prepared, watched)
    say_end(record)
    return folder


def follow(prepared: Prepared, config: Config, checkpoint: Path | None = None) -> Path:
    """Train as one of the processes that own no folder: nothing is written and nothing said.

    Process 0 tells how the run ended; this one leaves with 0 after a signal or a failure that all have agreed on.
    """
    nowhere = Path(os.devnull)
    watched = build_trainer(config, nowhere, prepared.corpus, prepared.steps_an_epoch)
    with logging_to(nowhere), watched.signals.listening():
        try:
            watched.trainer.fit(prepared.module, datamodule=prepared.data, ckpt_path=checkpoint, weights_only=True)
        except (Interrupted, RunFailure):
            sys.exit(0)
        except BaseException as error:
            if peer_is_gone(error):
                sys.exit(1)
            raise
    return nowhere


def describe(config: Config, prepared: Prepared) -> dict[str, Any]:
    """Return what the record says of a run before its first step."""
    trained = sum(p.numel() for p in prepared.module.parameters() if p.requires_grad)
    return {
        "name": config.name,
        "experiment": config.experiment,
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "parameters": trained,
        "vocab_size": len(prepared.corpus.vocabulary),
        "baselines": floor(prepared.corpus),
        "baselines_basis": basis(prepared.corpus),
        "windows": prepared.data.described(),
        "data_provenance": prepared.corpus.provenance,
        "init_from": prepared.init_from,
        "error": None,
    }


def floor(corpus: Corpus) -> dict[str, float]:
    """Return what is to beat, in bits a character: a uniform guess, and counted n-grams where there is a `val`."""
    if "val" not in corpus.splits:
        return {"uniform": math.log2(len(corpus.vocabulary))}
    known = baselines(corpus)
    return {name: max(0.0, known[name]) for name in ("uniform", "unigram", "ngram_5") if name in known}


def finish(
    record: Record, status: str, prepared: Prepared, watched: Watched, error: Mapping[str, str] | None = None
) -> None:
    """Write how the run ended, and what it had reached."""
    trainer, history = watched.trainer, watched.history
    record.update(
        status=status,
        finished=now(),
        seconds=round(history.seconds, 3),
        steps=trainer.global_step,
        epochs=trainer.fit_loop.epoch_progress.current.completed,
        characters=int(prepared.module.characters),
        metrics={"final": {**watched.curves.latest, **history.final}, "best": history.best},
        error=error,
    )
