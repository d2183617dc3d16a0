"""One training run: text, model, folder, trainer; and whatever happens, a record that says how it ended."""

from __future__ import annotations

import logging
import math
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.callbacks import Callback

from src.analysis.ngram import baselines, basis
from src.data.corpus import Corpus
from src.mistakes import Failure
from src.training.callbacks.signals import Interrupted
from src.training.logs import ONLY_IN_THE_FILE, logging_to
from src.training.prepare import Prepared, prepare
from src.training.ranks import peer_is_gone, rank
from src.training.run import Record, locked, new_folder, now, provenance, write_atomically
from src.training.tell import say_end, say_start
from src.training.together import watch_children
from src.training.trainer import Watched, build_trainer

log = logging.getLogger(__name__)


def fit(
    config: dict[str, Any], command: Mapping[str, Any], folder: Path | None = None, also: Sequence[Callback] = ()
) -> Path:
    """Train a new run and return its folder; everything that can be wrong is found before the folder exists.

    Args:
        config: the whole configuration, checked, plain data.
        command: entries for the record: `command`, `overrides`, `key`.
        folder: the run's folder, which is made; None makes a new one under `config["runs"]`.
        also: callbacks beside those of the configuration, called after them (a search's pruner).

    Raises:
        Mistake, DataError: see `prepare`.
        Interrupted: a signal stopped the run, and its state is saved.
    """
    prepared = prepare(config)
    if rank() > 0:
        return follow(prepared, config)
    if folder is None:
        folder = new_folder(Path(config["runs"]) / config["name"])
    else:
        folder.mkdir(parents=True)
    write_atomically(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    record = Record(folder, {"status": "running", **describe(config, prepared), **command, **provenance()})
    with locked(folder), logging_to(folder):
        return train(prepared, config, folder, record, also=also)


def train(
    prepared: Prepared,
    config: dict[str, Any],
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
            raise Failure(died) from error
        finish(record, "failed", prepared, watched, {"type": type(error).__name__, "message": str(error)})
        log.error("%s", traceback.format_exc().rstrip(), extra=ONLY_IN_THE_FILE)  # the console gets it from Python
        raise
    finally:
        ended.set()
    finish(record, "done", prepared, watched)
    say_end(record)
    return folder


def follow(prepared: Prepared, config: dict[str, Any], checkpoint: Path | None = None) -> Path:
    """Train as one of the processes that own no folder: nothing is written and nothing said.

    Process 0 tells how the run ended; this one leaves with 0 after a signal or a failure that all have agreed on.
    """
    nowhere = Path(os.devnull)
    watched = build_trainer(config, nowhere, prepared.corpus, prepared.steps_an_epoch)
    with logging_to(nowhere), watched.signals.listening():
        try:
            watched.trainer.fit(prepared.module, datamodule=prepared.data, ckpt_path=checkpoint, weights_only=True)
        except (Interrupted, Failure):
            sys.exit(0)
        except BaseException as error:
            if peer_is_gone(error):
                sys.exit(1)
            raise
    return nowhere


def describe(config: Mapping[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Return what the record says of a run before its first step."""
    trained = sum(p.numel() for p in prepared.module.parameters() if p.requires_grad)
    return {
        "name": config["name"],
        "experiment": config["experiment"],
        "model": config["model"]["name"],
        "data": config["data"]["name"],
        "seed": config["seed"],
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
