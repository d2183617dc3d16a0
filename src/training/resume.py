"""`resume=RUN`: go on in the same folder, from the newest undamaged checkpoint, to the bit.

This module checks what may change and sets the run's files back; then it calls `prepare` and `train` as a new run does.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from src.config.schema import Config, TrainerConfig, from_plain, key_table, set_value
from src.errors import UserError
from src.files import remove_leftovers
from src.training.checkpoint import Checkpoint, newest_checkpoint, truncate_logs
from src.training.console import logging_to
from src.training.distributed import rank, under_torchrun, world_size
from src.training.run import Prepared, prepare, train, write_config
from src.training.run_record import NO_FOLDER, Record, locked, now, provenance

log = logging.getLogger(__name__)


def resume(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Go on with a run in its folder; one that is done and asked for no more is left as it is.

    `changes` are dotted keys with `may_change` in the schema, and their new values. Raises UserError for no run there,
    another process on it, another key, a text that has changed, or no undamaged checkpoint; Interrupted as `fit` does.
    """
    record, config = read_run(folder)
    changes = dict(changes or {})
    check_changes(changes)
    for key, value in changes.items():
        set_value(config, key, value)
    own = folder if rank() == 0 else NO_FOLDER
    with locked(own), logging_to(own):
        checkpoint, done = newest_checkpoint(folder), record.entries["status"] == "done"
        if checkpoint:
            check_same_number(config.trainer, len(checkpoint.progress["ranks"]))
        if done and not changes:
            log.info("%s is done; to go on: resume=%s trainer.max_epochs=N", folder, folder)
            return folder
        prepared = prepare(config, checkpoint)
        if checkpoint:
            check_same_text(prepared, checkpoint)
            check_limits(prepared, checkpoint)
            why = why_no_step(prepared, checkpoint)
            if why and done:
                log.info("%s is done and left as it is: %s", folder, why)
                return folder
        if own == NO_FOLDER:
            record = Record(NO_FOLDER, record.entries)
        else:
            set_back(record, prepared, checkpoint, changes)
        return train(prepared, record, checkpoint)


def read_run(folder: Path) -> tuple[Record, Config]:
    """Return the record and the configuration of a run; UserError if the folder is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    try:
        stored = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return Record.read(folder), from_plain(stored)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no run: expected run.json and config.yaml in it ({error})") from error


def check_changes(changes: Mapping[str, Any]) -> None:
    """Raise UserError for keys that would make it another run."""
    free = [key for key, about in key_table().items() if about.may_change]
    refused = [key for key in changes if not any(key == one or one.startswith(f"{key}.") for one in free)]
    if refused:
        way = "to start a new one from its weights: init_from=RUN"
        raise UserError(*(f"{key} cannot change in a run that goes on; {way} {key}=..." for key in refused))


def check_same_number(trainer: TrainerConfig, stored: int) -> None:
    """Raise UserError for another number of processes than the run had: other streams, other sums."""
    asked = int(os.environ["WORLD_SIZE"]) if under_torchrun() else world_size(trainer)
    if asked != stored:
        raise UserError(
            f"the number of processes was {stored} in this run, and {asked} would not go on exactly; resume it with "
            f"{stored}: torchrun --nproc_per_node={stored}" + (", or without torchrun" if under_torchrun() else "")
        )


def check_same_text(prepared: Prepared, checkpoint: Checkpoint) -> None:
    """Raise UserError if the text is not the one that the run was trained on."""
    for what in ("vocabulary", "corpus"):
        if prepared.module.identity[what] != checkpoint.content["unroll"][what]:
            raise UserError(
                f"the {what} is not the one in {checkpoint.path}: the text has changed since; "
                "put the old text back, or start a new run with init_from="
            )


def check_limits(prepared: Prepared, checkpoint: Checkpoint) -> None:
    """Raise UserError for a limit that the run has passed already."""
    trainer, step = prepared.config.trainer, checkpoint.step
    for what, limit, reached in (
        ("epochs", trainer.max_epochs, math.ceil(step / prepared.steps_an_epoch)),  # one that has begun counts
        ("steps", trainer.max_steps, step),
    ):
        if 0 <= limit < reached:
            raise UserError(f"trainer.max_{what}={limit}: {reached} {what} are trained already; give {reached} or more")


def why_no_step(prepared: Prepared, checkpoint: Checkpoint) -> str:
    """Return why a run has no step left to make and what would give it some, or an empty text."""
    step, config = checkpoint.step, prepared.config
    if step >= config.trainer.run_steps(prepared.steps_an_epoch):
        return f"it has made all its {step} steps; for more: trainer.max_epochs=N (or max_steps, where that is set)"
    waited = checkpoint.state("early_stopping").get("lines", 0)
    if config.early_stopping.enabled and waited >= config.early_stopping.patience:
        return (
            f"early stopping ended it at step {step}, {waited} validations without a better one; "
            f"to go on: early_stopping.enabled=false, or early_stopping.patience above {waited}"
        )
    return ""


def set_back(record: Record, prepared: Prepared, checkpoint: Checkpoint | None, changes: Mapping[str, Any]) -> None:
    """Set the files of a run back to its checkpoint, and write into the record that it goes on."""
    folder, last = record.folder, record.folder / "checkpoints" / "last.ckpt"
    if checkpoint and checkpoint.path != last and last.exists():
        last.rename(last.with_name("damaged.ckpt"))  # the next save must not make it previous.ckpt
    for below in (folder, folder / "checkpoints"):
        remove_leftovers(below)
    truncate_logs(folder, checkpoint.state("checkpoint").get("lengths", {}) if checkpoint else {})
    write_config(folder, prepared.config)
    step, changed = 0, "".join(f"; {key} is now {value}" for key, value in changes.items())
    if checkpoint:
        step, changed = checkpoint.step, changed + end_of_schedule(prepared, checkpoint)
    before = {key: record.entries[key] for key in ("status", "started", "process", "git")}
    resumed = [{"from_step": step, "at": now(), "changes": changes, "before": before}]
    record.entries |= provenance() | {"started": before["started"], "status": "running", "error": None}
    record.entries["resumed"] = record.entries.get("resumed", []) + resumed
    log.info("going on from %s at step %d%s", checkpoint.path.name if checkpoint else "the start", step, changed)


def end_of_schedule(prepared: Prepared, checkpoint: Checkpoint) -> str:
    """Return the note on a schedule that ends before the run does, for its horizon is that of the first start."""
    config, horizon = prepared.config, checkpoint.progress["schedule"]["total_steps"]
    if config.scheduler.name != "cosine" or horizon >= config.trainer.run_steps(prepared.steps_an_epoch):
        return ""
    rate, verb = (
        config.optimizer.lr * config.scheduler.final_fraction,
        "has ended" if checkpoint.step >= horizon else "ends",
    )
    return f"; the schedule {verb} at step {horizon}: its last rate is {rate:g}" + ", which trains nothing" * (
        rate == 0
    )
