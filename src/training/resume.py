"""`resume=RUN_DIR`: go on in the same folder, from the last sound checkpoint, to the bit."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from src.config.checks import run_steps
from src.config.schema import Config, from_plain, set_value, to_plain
from src.errors import UserError
from src.files import write_atomic
from src.training.checkpoint import cut_back, newest_sound
from src.training.console import logging_to
from src.training.distributed import check_same_number, rank
from src.training.run import Prepared, follow, prepare, train
from src.training.run_record import Record, locked, now, provenance

log = logging.getLogger(__name__)

# What a run may change on its way: where things lie, what is shown and kept, how long it goes. Nothing else: another
# size, text, rate or seed would make it another run.
MAY_CHANGE = (
    "runs",
    "callbacks",
    "logger",
    "checkpoint.every_n_steps",
    "checkpoint.every_n_minutes",
    "data.path",
    "data.val_path",
    "data.test_path",
    "data.root",
    "early_stopping",
    "sweep",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.min_epochs",
    "trainer.threads",
)


def resume(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Go on with a run in its folder; one that is done and asked for no more is left as it is.

    Args:
        folder: the run's folder.
        changes: dotted key -> new value, of the keys in MAY_CHANGE.

    Raises:
        UserError: no run there, another process on it, a key that may not change, a text that has changed, no sound
            checkpoint left.
        Interrupted: a signal stopped the run again, and its state is saved.
    """
    record, config = read_run(folder)
    changes = dict(changes or {})
    check_changes(changes)
    for key, value in changes.items():
        set_value(config, key, value)
    if rank() > 0:
        path, checkpoint = sound_checkpoint(folder)
        stored = checkpoint["unroll"] if checkpoint else None
        if stored:
            check_same_number(config.trainer, len(stored["progress"]["ranks"]))
        if not changes and record.entries["status"] == "done":
            return folder  # as the first process, which says so
        prepared = prepare(config, stored["progress"]["threads"] if stored else None, stored)
        config = prepared.config
        if checkpoint and record.entries["status"] == "done" and why_no_step(config, prepared, checkpoint):
            return folder
        return follow(prepared, config, path)
    with locked(folder), logging_to(folder):
        path, checkpoint = sound_checkpoint(folder)
        if checkpoint:
            check_same_number(config.trainer, len(checkpoint["unroll"]["progress"]["ranks"]))
        if not changes and record.entries["status"] == "done":
            log.info("%s is done; to go on: resume=%s trainer.max_epochs=N", folder, folder)
            return folder
        progress = checkpoint["unroll"]["progress"] if checkpoint else None
        same_threads = progress is not None and config.trainer.threads == "auto"
        threads = progress["threads"] if progress and same_threads else None
        prepared = prepare(config, threads, checkpoint["unroll"] if checkpoint else None)
        config = prepared.config
        if checkpoint:
            check_same(prepared, checkpoint, path)
            check_limits(config.trainer, prepared.steps_an_epoch, checkpoint["global_step"])
            why = why_no_step(config, prepared, checkpoint)
            if why and record.entries["status"] == "done":
                log.info("%s is done and left as it is: %s", folder, why)
                return folder
        was = {key: record.entries[key] for key in ("status", "started", "process", "git")}
        step = checkpoint["global_step"] if checkpoint else 0
        set_damaged_aside(folder / "checkpoints", path)
        remove_half_written(folder)
        cut_back(folder, lengths_in(checkpoint) if checkpoint else {})
        write_atomic(folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))
        earlier = [
            *record.entries.get("resumed", []),
            {"from_step": step, "at": now(), "changes": changes, "before": was},
        ]
        again = {"started": was["started"], "resumed": earlier, "status": "running", "error": None}
        record.entries.update(provenance() | again)
        changed = "".join(f"; {key} is now {value}" for key, value in changes.items())
        changed += end_of_schedule(config, prepared, checkpoint) if checkpoint else ""
        log.info("going on from %s at step %d%s", path.name if path else "the start", step, changed)
        return train(prepared, config, folder, record, path)


def read_run(folder: Path) -> tuple[Record, Config]:
    """Return the record and the configuration of a run.

    Raises:
        UserError: the folder is no run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    try:
        stored = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return Record.read(folder), from_plain(stored)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no run: expected run.json and config.yaml in it ({error})") from error


def check_changes(changes: Mapping[str, Any]) -> None:
    """Raise UserError for keys that would make the run another one."""
    refused = [key for key in changes if not any(key == free or key.startswith(free + ".") for free in MAY_CHANGE)]
    if refused:
        raise UserError(
            *(
                f"{key} cannot change in a run that goes on; "
                f"to start a new one from its weights: init_from=RUN {key}=..."
                for key in refused
            )
        )


def check_limits(trainer: Mapping[str, Any], steps_an_epoch: int, step: int) -> None:
    """Raise UserError for a limit that the run has passed already."""
    for what, limit, reached in (
        ("epochs", trainer["max_epochs"], math.ceil(step / steps_an_epoch)),  # one that has begun counts
        ("steps", trainer["max_steps"], step),
    ):
        if 0 <= limit < reached:
            raise UserError(f"trainer.max_{what}={limit}: {reached} {what} are trained already; give {reached} or more")


def why_no_step(config: Config, prepared: Prepared, checkpoint: Mapping[str, Any]) -> str:
    """Return why a run has no step left to make, and what would give it some; nothing where it has."""
    step, words = checkpoint["global_step"], config.early_stopping
    if step >= run_steps(config.trainer, prepared.steps_an_epoch):
        return f"it has made all its {step} steps; for more: trainer.max_epochs=N (or max_steps, where that is set)"
    waited = checkpoint["callbacks"].get("StopEarly", {}).get("lines", 0)
    if words["enabled"] and waited >= words["patience"]:
        return (
            f"early stopping ended it at step {step}, {waited} validations without a better one; "
            f"to go on: early_stopping.enabled=false, or early_stopping.patience above {waited}"
        )
    return ""


def end_of_schedule(config: Config, prepared: Prepared, checkpoint: Mapping[str, Any]) -> str:
    """Return what is to be said of a schedule that ends before the run does: its horizon is that of its first start."""
    horizon = checkpoint["unroll"]["progress"]["schedule"]["total_steps"]
    if config.scheduler.name != "cosine" or horizon >= run_steps(config.trainer, prepared.steps_an_epoch):
        return ""
    rate = config.optimizer.lr * config.scheduler.final_fraction
    return f"; the schedule {'has ended' if checkpoint['global_step'] >= horizon else 'ends'} at step {horizon}: " + (
        f"its last rate is {rate:g}" + (", which trains nothing" if rate == 0 else "")
    )


def check_same(prepared: Prepared, checkpoint: Mapping[str, Any], path: Path | None) -> None:
    """Raise UserError where the text is not the one that the run was trained on."""
    for what in ("vocabulary", "corpus"):
        if prepared.module.identity[what] != checkpoint["unroll"][what]:
            raise UserError(
                f"the {what} is not the one in {path}: the text has changed since; "
                "put the old text back, or start a new run with init_from="
            )


def sound_checkpoint(folder: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the newest whole checkpoint, or None for a run that was stopped before its first."""
    checkpoints = folder / "checkpoints"
    if not any((checkpoints / name).exists() for name in ("last.ckpt", "previous.ckpt")):
        return None, None
    return newest_sound(checkpoints)


def remove_half_written(folder: Path) -> None:
    """Delete what a process that was killed while it wrote has left beside the files that it was to replace."""
    for pattern in (".run.json.*", ".config.yaml.*", "checkpoints/.*.ckpt.*"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def set_damaged_aside(checkpoints: Path, used: Path | None) -> None:
    """Rename a damaged `last.ckpt`: the next save must not make it the one to fall back on."""
    last = checkpoints / "last.ckpt"
    if used is not None and used != last and last.exists():
        last.rename(checkpoints / "damaged.ckpt")


def lengths_in(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """Return how long the files that only grow were when the checkpoint was written."""
    known = (state["lengths"] for name, state in checkpoint["callbacks"].items() if name.startswith("Keeper"))
    return next(known, {})
