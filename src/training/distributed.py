"""Several processes that train as one: which of them this is, and how they agree.

Process 0 owns the run's folder, its record, its curves and its log; the others compute their share of the streams.
What only one of them can know (a signal, the time) is agreed on at the end of a batch: all stop or save together.
"""

from __future__ import annotations

import functools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies.launchers import subprocess_script

from src.errors import UserError

# Set by torchrun, by Lightning's own launcher and by SLURM, in this order of trust.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
PEER_IS_GONE = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "gloo", "NCCL")


def rank() -> int:
    """Return the number of this process among those of the run, before a trainer knows it; 0 where there is one."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def world_size(trainer: Mapping[str, Any]) -> int:
    """Return how many processes a `trainer` configuration asks for."""
    return int(trainer["devices"]) * int(trainer["num_nodes"])


def agree(trainer: pl.Trainer, *numbers: int) -> tuple[int, ...]:
    """Return the largest that any process has of each number or flag; every process must ask, at the same moment."""
    if trainer.world_size == 1:
        return numbers
    mine = torch.tensor([float(number) for number in numbers], device=trainer.strategy.root_device)
    reduced = trainer.strategy.reduce(mine, reduce_op="max")
    assert isinstance(reduced, torch.Tensor)
    return tuple(int(number) for number in reduced)


def peer_is_gone(error: BaseException) -> bool:
    """Whether an error says no more than that another process of the run has died."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in PEER_IS_GONE)


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def join_torchrun(trainer: dict[str, Any]) -> None:
    """Under torchrun, write into the `trainer` configuration how it has spread the processes over nodes.

    Raises:
        UserError: another number of them was asked for.
    """
    if not under_torchrun():
        return
    started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if world_size(trainer) not in (1, started):
        raise UserError(
            f"torchrun has started {started} processes, and trainer.devices={trainer['devices']} "
            f"trainer.num_nodes={trainer['num_nodes']} asks for {world_size(trainer)}; leave both out"
        )
    trainer["devices"], trainer["num_nodes"] = here, started // here


def told_by_first(key: str, text: str) -> str:
    """Under torchrun, return the text that process 0 has for a key, before the processes train together."""
    store, number = _store()
    key = f"unroll/{os.environ['TORCHELASTIC_RESTART_COUNT']}/{key}"  # started again, they agree again
    if number == 0:
        store.set(key, text)
    return str(store.get(key).decode())  # waits until it is there


@functools.cache  # kept: where torchrun has none, process 0 has opened it, and the others ask until they train
def _store() -> tuple[torch.distributed.Store, int]:
    """Return what the processes tell one another before they have a group, found in the environment, and the rank."""
    store, number, _ = next(torch.distributed.rendezvous("env://"))
    return store, number


def check_same_number(trainer: Mapping[str, Any], stored: int) -> None:
    """Raise UserError where a run of `stored` processes would go on with another number: other streams, other sums."""
    now = int(os.environ["WORLD_SIZE"]) if under_torchrun() else world_size(trainer)
    if now != stored:
        raise UserError(
            f"the number of processes was {stored} in this run, and {now} would not go on exactly; resume it with "
            f"{stored}: torchrun --nproc_per_node={stored}" + (", or without torchrun" if under_torchrun() else "")
        )


# ---- None of several processes outlives the others: who is left alone leaves, before they have met as well as after.

PARENT = "UNROLL_PARENT"  # the first process, for those that Lightning starts from it
EVERY = 0.5  # seconds between two looks
GRACE = 10  # seconds in which the first process may find out by itself, and end with more to tell


def leave_with_parent() -> None:
    """In a process that another has started, leave as soon as that one is gone: nobody else would end it."""
    parent = os.getppid() if under_torchrun() else int(os.environ.get(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="leave with parent").start()


def watch_children(give_up: Callable[[], None]) -> threading.Event:
    """Have the processes that Lightning will start from this one watched, in place of its own watcher.

    Lightning's kills this process without a word. Ours lets it end by itself; where it hangs (in the rendezvous it
    would wait for half an hour) it calls `give_up` and leaves with exit code 1.

    Returns:
        What to set when the run has ended, however it did.
    """
    os.environ[PARENT] = str(os.getpid())
    ended = threading.Event()

    def watch(children: list[subprocess.Popen[Any]]) -> None:
        while not ended.wait(EVERY):
            codes = [child.poll() for child in children]
            if any(codes):
                if not ended.wait(GRACE):
                    give_up()
                    os._exit(1)
                return

    def start(child_processes: list[subprocess.Popen[Any]]) -> None:
        threading.Thread(target=watch, args=(child_processes,), daemon=True, name="watch children").start()

    subprocess_script._launch_process_observer = start
    return ended
