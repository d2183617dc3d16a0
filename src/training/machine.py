"""Checks of a run against this machine and its text before it starts, and process-wide settings. Importing is cheap."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Container
from typing import Any

from src.config.schema import Config, ModelConfig, TextSamplesConfig, TrainerConfig
from src.data.vocabulary import Vocabulary
from src.errors import UnknownCharacter, UserError

# Up to this hidden size one thread. Alone on two cores a step of two threads is 0.95 to 1.1 times as fast up to 96
# units and 1.25 to 1.55 at 128, but two such runs side by side slow one another tenfold, and small runs are many.
SMALL = 128


def available_accelerators() -> dict[str, int]:
    """Return how many devices of each kind torch finds here."""
    import torch

    counts = {"cpu": os.cpu_count() or 1}
    if torch.cuda.is_available():
        counts["gpu"] = torch.cuda.device_count()
    if torch.backends.mps.is_available():
        counts["mps"] = 1
    return counts


def check_machine(trainer: TrainerConfig) -> None:
    """Raise UserError if `trainer` asks for what this machine lacks, with what would work."""
    here = available_accelerators()
    asked = {"cuda": "gpu"}.get(trainer.accelerator, trainer.accelerator)
    if asked != "auto" and asked not in here:
        raise UserError(
            f"trainer.accelerator={trainer.accelerator}, but torch finds none on this machine; "
            f"use trainer.accelerator={' or '.join(here)}"
        )
    most = (
        max(2, here["cpu"]) if asked == "cpu" else here.get(asked, trainer.devices)
    )  # two show on one core how it works
    if trainer.devices > most:
        raise UserError(
            f"trainer.devices={trainer.devices}: expected at most {most}; this machine has {here[asked]} {asked}"
        )
    if trainer.precision.startswith("16") and (asked == "cpu" or "gpu" not in here):
        raise UserError(f"trainer.precision={trainer.precision} needs a GPU; on a CPU use bf16-mixed or 32-true")


def check_prompt(samples: TextSamplesConfig, vocabulary: Vocabulary) -> None:
    """Raise UserError if the prompt of callbacks.text_samples has characters that the vocabulary lacks."""
    if not (samples.enabled and samples.prompt):
        return
    try:
        vocabulary.encode(samples.prompt)
    except UnknownCharacter as error:
        raise UserError(f"callbacks.text_samples.prompt={samples.prompt!r}: {error}") from error


def check_size(model: ModelConfig, vocab_size: int) -> None:
    """Raise UserError if the weights and their gradients, 4 bytes each, do not fit into the memory of this machine."""
    H, L = model.hidden_size, model.num_layers
    numbers = H * (vocab_size + H * (2 * L - 1)) * {"lstm": 4, "gru": 3}.get(model.name, 1)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 8 * numbers > memory:
        raise UserError(
            f"model.hidden_size={H} model.num_layers={L}: {numbers:,} weights and their gradients take "
            f"{8 * numbers / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}"
        )


def check_monitor(config: Config, splits: Container[str]) -> None:
    """Raise UserError if the monitored metric is of `val` and the text has no such split.

    Not for the default metric, unless early stopping or the plateau scheduler needs it.
    """
    monitor, data = config.checkpoint.monitor, config.data.name
    if "val" in splits or not monitor.startswith("val/"):
        return
    needs = ["early_stopping.enabled=true"] if config.early_stopping.enabled else []
    needs += ["scheduler=plateau"] if config.scheduler.name == "plateau" else []
    if needs or data == "hello" or monitor != "val/cross_entropy":  # which is the default of every other text
        needed = f"{' and '.join(needs)} with " if needs else ""
        raise UserError(
            f"{needed}checkpoint.monitor={monitor}: the text of data={data} has no val split; "
            f"expected a metric of training, checkpoint.monitor=train/{monitor.removeprefix('val/')}"
        )


def threads_for(threads: str, hidden_size: int, share: int = 1) -> int:
    """Return how many threads this process uses; `auto` shares the cores among processes and runs if layers are large.

    `share` processes of this run share the machine; UNROLL_SIDE_BY_SIDE says how many runs of a sweep do.
    """
    if threads != "auto":
        return int(threads)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    share *= int(os.environ.get("UNROLL_SIDE_BY_SIDE", "1"))
    return 1 if hidden_size <= SMALL else max(1, cores // share)


def use_threads(count: int) -> None:
    """Let torch use `count` threads, and numpy, whose products sample texts and ignore torch's setting, at most."""
    import torch

    torch.set_num_threads(count)
    pools, most = _numpy_pools()
    pools.limit(limits=min(count, most))  # for the rest of the process


@functools.cache
def _numpy_pools() -> tuple[Any, int]:
    """The libraries behind numpy's products, and how many threads this process was started with (OMP_NUM_THREADS)."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    pools = ThreadpoolController().select(user_api="blas")
    return pools, max((pool["num_threads"] for pool in pools.info()), default=1)


def keep_memory() -> None:
    """Keep freed memory for the next step, if the system's allocator is glibc's.

    By default it returns large blocks at once and takes them again: a page fault for every 4 KB, 1,000 to 10,000 in a
    step of 256 to 512 units, 1 to 15 % of its time. The peak grows by 1 to 4 %.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
            mallopt(parameter, 2**30)
