"""Several processes that train as one: which of them this is, and how they agree.

Process 0 (rank 0) owns the run's folder, its record, its curves and its log; the others compute their share of the
streams. What only one of them can know (a signal, the time) is agreed on at the end of a batch: all stop or save
together.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import threading
import time

import lightning.pytorch as pl
import torch

from src.config.schema import TrainerConfig
from src.errors import UserError

# Set by torchrun, by Lightning's own launcher and by SLURM; the first that is set counts.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "gloo", "NCCL")
SEED = "UNROLL_SEED"  # the seed that process 0 has drawn, for the others
PARENT = "UNROLL_PARENT"  # the id of process 0, for those that Lightning starts from it


def rank() -> int:
    """Return the number of this process among those of the run, before a trainer knows it; 0 if there is one."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def world_size(trainer: TrainerConfig) -> int:
    """Return how many processes a configuration asks for."""
    return trainer.devices * trainer.num_nodes


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def join(trainer: TrainerConfig) -> TrainerConfig:
    """Watch the parent process; return the configuration with the number of processes that torchrun has started."""
    if rank() > 0:
        exit_with_parent()
    else:
        os.environ[PARENT] = str(os.getpid())
    if not under_torchrun():
        return trainer
    started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if world_size(trainer) not in (1, started):
        raise UserError(
            f"torchrun has started {started} processes, and trainer.devices={trainer.devices} "
            f"trainer.num_nodes={trainer.num_nodes} asks for {world_size(trainer)}; leave both out"
        )
    return dataclasses.replace(trainer, devices=here, num_nodes=started // here)


def exit_with_parent() -> None:
    """Exit if the process that started this one dies, which processes that wait to meet notice after half an hour."""
    parent = os.getppid() if under_torchrun() else int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="exit with parent").start()


def drawn_seed() -> int:
    """Return a random seed; processes that Lightning starts from process 0 find it in their environment."""
    if under_torchrun():
        raise UserError("seed=null: torchrun's processes would each draw a seed; give a number, as seed=0")
    if rank() == 0:
        os.environ[SEED] = str(secrets.randbelow(2**31))
    return int(os.environ[SEED])


def agree(trainer: pl.Trainer, *numbers: int) -> tuple[int, ...]:
    """Return the largest that any process has of each number or flag; every process must ask, at the same moment."""
    return tuple(int(number) for number in _reduced(trainer, numbers, "max"))


def total(trainer: pl.Trainer, value: float) -> float:
    """Return the sum of a number over all processes of the run."""
    return _reduced(trainer, (value,), "sum")[0]


def _reduced(trainer: pl.Trainer, numbers: tuple[float, ...], how: str) -> list[float]:
    if trainer.world_size == 1:
        return list(numbers)
    device = trainer.strategy.root_device  # NCCL reduces no tensor of a CPU
    reduced = trainer.strategy.reduce(torch.tensor(numbers, dtype=torch.float64, device=device), reduce_op=how)
    assert isinstance(reduced, torch.Tensor)
    found: list[float] = reduced.tolist()
    return found


def peer_is_gone(error: BaseException) -> bool:
    """Whether an error means no more than that another process of the run has died."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in PEER_IS_GONE)
