"""The machine, and the processes that train one run together: checks before the start, ranks, common decisions.

Process 0 owns the run's folder; the others compute their share of the streams. What only one of them can know (a
signal, the time) is agreed on at the end of a batch. Importing this module does not import torch.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import os
import secrets
import sys
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from src.config.schema import Config, TextSamplesConfig, TrainerConfig
from src.data.vocabulary import Vocabulary
from src.errors import UnknownCharacter, UserError
from src.process import exit_when

if TYPE_CHECKING:
    import lightning.pytorch as pl

# Set by torchrun, by Lightning's own launcher and by SLURM; the first that is set counts.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
PEER_IS_GONE = ("closed by peer", "reset by peer", "Timed out waiting", "remote process exited")  # gloo's and NCCL's
SEED = "UNROLL_SEED"  # the seed that process 0 has drawn, for the others
PARENT = "UNROLL_PARENT"  # the id of process 0, for those that Lightning starts from it


def available_accelerators() -> dict[str, int]:
    """Return how many devices of each kind torch sees here."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cpu": os.cpu_count() or 1, "gpu": gpus, "mps": int(torch.backends.mps.is_available())}
    return {kind: count for kind, count in counts.items() if count}


def check_machine(trainer: TrainerConfig) -> None:
    """Raise UserError with a remedy if this machine lacks what `trainer` needs."""
    here, trainer = available_accelerators(), with_devices(trainer)
    kind = {"cuda": "gpu", "auto": max(here)}.get(trainer.accelerator, trainer.accelerator)  # gpu or mps before cpu
    if kind not in here:
        use = f"use trainer.accelerator={' or '.join(here)}"
        raise UserError(f"trainer.accelerator={trainer.accelerator}, but torch sees none on this machine; {use}")
    devices = int(trainer.devices)
    most = max(2, here["cpu"]) if kind == "cpu" else here[kind]  # two show it on one core too
    if devices > most:
        raise UserError(f"trainer.devices={devices}: expected at most {most} on this machine")
    if trainer.precision.startswith("16") and kind != "gpu":
        raise UserError(f"trainer.precision={trainer.precision} needs a GPU; on a CPU use bf16-mixed or 32-true")
    if trainer.cuda_graph is True and not uses_cuda(trainer):
        what = "torch sees no CUDA GPU on this machine"
        raise UserError(f"trainer.cuda_graph=true, but {what}; use trainer.cuda_graph=auto")


def uses_cuda(trainer: TrainerConfig) -> bool:
    """Whether a run with this configuration is on an NVIDIA (or ROCm) GPU."""
    import torch

    return trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()


def set_up_gpu(trainer: TrainerConfig) -> None:
    """Set up the GPU as configured. Call this before CUDA's libraries start: they read the environment only once.

    Float32 products are float32, unless trainer.tf32=true: torch's own default is TF32 in cuDNN, and float32 elsewhere.
    """
    if uses_cuda(trainer):
        import torch

        if trainer.deterministic:  # else torch refuses each product
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if torch.cuda.is_initialized():  # by an earlier run of this process
            torch.cuda.reset_peak_memory_stats()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(trainer.tf32)


def gpu_description() -> dict[str, Any] | None:
    """Return what run.json says about the GPU that this process uses, and its peak memory so far; None without one."""
    import torch

    if not torch.cuda.is_initialized():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "name": properties.name, "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count, "memory_mb": round(properties.total_memory / 1e6),
        "peak_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1),
        "peak_reserved_mb": round(torch.cuda.max_memory_reserved() / 1e6, 1),
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
    }  # fmt: skip


def check_prompt(samples: TextSamplesConfig, vocabulary: Vocabulary) -> None:
    """Raise UserError if the prompt of callbacks.text_samples has characters that the vocabulary lacks."""
    try:
        vocabulary.encode(samples.prompt or "" if samples.enabled else "")
    except UnknownCharacter as error:
        raise UserError(f"callbacks.text_samples.prompt={samples.prompt!r}: {error}") from error


def check_monitor(config: Config, splits: Container[str]) -> None:
    """Raise UserError if there is no val split and the monitor, early stopping or plateau needs it."""
    monitor, data = config.checkpoint.monitor, config.data.name
    needed = config.early_stopping.enabled or config.scheduler.name == "plateau" or data == "hello"
    asked = monitor.startswith("val/") and (needed or monitor != "val/cross_entropy")  # the default of other texts
    if asked and "val" not in splits:
        expected = f"a metric of training, checkpoint.monitor=train/{monitor.removeprefix('val/')}"
        raise UserError(f"checkpoint.monitor={monitor}: the text of data={data} has no val split; expected {expected}")


def check_validation_comes(config: Config, windows: int) -> None:
    """Raise UserError if plateau or early stopping would never get a validation; `windows` are in an epoch."""
    trainer, every, monitor = config.trainer, config.trainer.val_check_interval, config.checkpoint.monitor
    waits = ["early_stopping.enabled=true"] * config.early_stopping.enabled
    waits += ["scheduler=plateau"] * (config.scheduler.name == "plateau")
    first = int(every) if isinstance(every, int) or every > 1 else max(1, int(windows * every))
    an_epoch, first = (math.ceil(count / trainer.accumulate_grad_batches) for count in (windows, first))
    first += (trainer.check_val_every_n_epoch - 1) * an_epoch
    steps = trainer.run_steps(an_epoch)
    if waits and monitor.startswith("val/") and first > steps:
        remedy = "validate more often (trainer.check_val_every_n_epoch, trainer.val_check_interval) or train longer"
        raise UserError(f"{waits[0]} waits for {monitor}, and no validation comes in {steps} steps: {remedy}")


def keep_memory() -> None:
    """Keep freed memory for the next step, if the system's allocator is glibc's: saves page faults, 1 to 15 % of it."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
            mallopt(parameter, 2**30)


def rank() -> int:
    """Return the number of this process among those of the run, before a trainer knows it; 0 if there is one."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def with_devices(trainer: TrainerConfig) -> TrainerConfig:
    """Return the configuration with the number that devices=auto means here: each GPU, on a CPU one process."""
    if trainer.devices != "auto":
        return trainer
    here = available_accelerators()
    on_gpu = trainer.accelerator in ("gpu", "cuda", "auto") and not under_torchrun()  # it sets the number
    return dataclasses.replace(trainer, devices=here.get("gpu", 1) if on_gpu else 1)


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def join(trainer: TrainerConfig) -> TrainerConfig:
    """Watch the parent process; return the configuration with the number of processes that torchrun has started."""
    trainer = with_devices(trainer)
    if rank() > 0:
        # Processes that wait to meet would notice only after half an hour that the one which started them has died
        parent = os.getppid() if under_torchrun() else int(os.environ.get(PARENT, os.getppid()))
        exit_when(lambda: os.getppid() != parent)
    else:
        os.environ[PARENT] = str(os.getpid())
    if not under_torchrun():
        tasks = int(os.environ.get("SLURM_NTASKS", trainer.processes))
        by_srun = os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")  # as Lightning has it
        if by_srun and tasks != trainer.processes and max(rank() + 1, trainer.processes) > 1:
            asked = f"trainer.devices x trainer.num_nodes is {trainer.processes}"
            raise UserError(f"SLURM has {tasks} tasks, and {asked}; use srun -n {trainer.processes}")
        return trainer
    started, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if trainer.processes not in (1, started):
        asked = f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes} asks for"
        raise UserError(f"torchrun has started {started} processes, and {asked} {trainer.processes}; leave both out")
    return dataclasses.replace(trainer, devices=here, num_nodes=started // here)


def drawn_seed() -> int:
    """Return a random seed; processes that Lightning starts from process 0 find it in their environment."""
    if under_torchrun():
        raise UserError("seed=null: torchrun's processes would each draw a seed; give a number, as seed=0")
    if rank() == 0:
        os.environ[SEED] = str(secrets.randbelow(2**31))
    return int(os.environ[SEED])


def reduced(trainer: pl.Trainer, how: str, *numbers: float) -> list[float]:
    """Return the `max` or `sum` over all processes of each number or flag; every process must ask at the same time."""
    if trainer.world_size == 1:
        return list(numbers)
    import torch

    # On the CPU, with gloo, which build_trainer sets up beside NCCL: this is asked at each step, and must not wait for
    # what the GPU does
    operation = {"max": torch.distributed.ReduceOp.MAX, "sum": torch.distributed.ReduceOp.SUM}[how]
    reduced = torch.tensor(numbers, dtype=torch.float64)
    torch.distributed.all_reduce(reduced, operation)
    return [float(number) for number in reduced.tolist()]


def peer_is_gone(error: BaseException) -> bool:
    """Whether an error only means that another process of the run has died."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in PEER_IS_GONE)
