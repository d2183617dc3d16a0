"""Several processes that train as one: which of them this is, and how they agree.

Process 0 owns the run's folder, its record, its curves and its log; the others compute their share of the streams.
What only one of them can know (a signal, the time) is agreed on at the end of a batch: all stop or save together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from src.mistakes import Mistake

# Set by torchrun, by Lightning's own launcher and by SLURM, in this order of trust.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "gloo", "NCCL")


def rank() -> int:
    """Return the number of this process among those of the run, before a trainer knows it; 0 where there is one."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def world_size(trainer: Mapping[str, Any]) -> int:
    """Return how many processes a `trainer` configuration asks for."""
    return int(trainer["devices"]) * int(trainer["num_nodes"])


def agree(trainer: pl.Trainer, *flags: bool) -> tuple[bool, ...]:
    """Return each flag as it is true of any process; every process must ask, at the same moment."""
    if trainer.world_size == 1:
        return flags
    mine = torch.tensor([float(flag) for flag in flags], device=trainer.strategy.root_device)
    reduced = trainer.strategy.reduce(mine, reduce_op="max")
    assert isinstance(reduced, torch.Tensor)
    return tuple(bool(flag) for flag in reduced)


def peer_is_gone(error: BaseException) -> bool:
    """Whether an error says no more than that another process of the run has died."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in PEER_IS_GONE)


def join_torchrun(trainer: dict[str, Any]) -> None:
    """Under torchrun, write into the `trainer` configuration how many processes it has started, where nothing was said.

    Raises:
        Mistake: something else was said.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if world_size(trainer) == 1:
        trainer["devices"], trainer["num_nodes"] = here, started // here
    if world_size(trainer) != started:
        raise Mistake(
            f"torchrun has started {started} processes, and trainer.devices={trainer['devices']} "
            f"trainer.num_nodes={trainer['num_nodes']} asks for {world_size(trainer)}; leave both out"
        )


def check_same_number(trainer: Mapping[str, Any], stored: int) -> None:
    """Raise Mistake where a run of `stored` processes would go on with another number: other streams, other sums."""
    if world_size(trainer) != stored:
        raise Mistake(
            f"the run was trained by {stored} processes, and {world_size(trainer)} would not go on exactly; "
            f"resume it with as many: trainer.devices={stored}"
        )
