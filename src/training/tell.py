"""What a user reads: what runs and what is to beat at the start, where the results are at the end."""

from __future__ import annotations

import logging

from src.data.corpus import Corpus
from src.metrics import bits_per_character
from src.training.run import Record

log = logging.getLogger(__name__)


def say_start(record: Record, corpus: Corpus) -> None:
    """Say in one line what runs, and in one what to beat."""
    known = record.entries
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in corpus.splits.items())
    log.info(
        "%s on %s (%d characters to tell apart; %s): %s parameters, seed %d, in %s",
        known["model"],
        known["data"],
        known["vocab_size"],
        sizes,
        f"{known['parameters']:,}",
        known["seed"],
        record.folder,
    )
    for note in corpus.notes:
        log.info("%s", note)
    floors = ", ".join(f"{name} {bits:.3f}" for name, bits in known["baselines"].items())
    partial = f" ({known['baselines_basis']})" if known.get("baselines_basis") else ""
    log.info("to beat, in bits a character: %s%s", floors, partial)


def say_end(record: Record) -> None:
    """Say what was reached and where it lies."""
    best = record.entries["metrics"]["best"]
    if best is not None and best["monitor"] == "val/cross_entropy":
        nats = best["value"]
        log.info("best val %.4f nats = %.4f bits a character, at step %d", nats, bits_per_character(nats), best["step"])
    log.info("done in %.1f s: %s", record.entries["seconds"], record.folder)
