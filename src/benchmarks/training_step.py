"""benchmark=step: a step of training through the whole framework, and the same step in a bare loop, in turns."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from src.benchmarks.measuring import table_lines
from src.config.checks import errors_in_config
from src.config.compose import compose, to_config
from src.config.overrides import errors_in_overrides, quote_literals
from src.config.schema import Config
from src.errors import UserError, counted
from src.process import heavy_imports, logging_to

OVERRIDES = (
    "data=tiny_shakespeare", "model=manual", "model.hidden_size=128", "model.num_layers=2", "data.seq_len=50",
    "data.batch_size=50", "trainer.limit_val_batches=1", "trainer.enable_progress_bar=false",
)  # fmt: skip
BLOCK = 20
KINDS: dict[str, Callable[[list[float]], float]] = {"min": min, "median": statistics.median, "mean": statistics.fmean}


def run(overrides: Sequence[str], steps: int) -> dict[str, Any]:
    """Time about `steps` steps of each and return milliseconds, as plain data; the overrides change the run."""
    overrides = [*OVERRIDES, *overrides]
    if wrong := errors_in_overrides(quote_literals(overrides), Config):
        raise UserError(*wrong.values())
    config: Config = to_config(compose(overrides))
    if errors := errors_in_config(config):
        raise UserError(*errors)
    if config.trainer.precision not in ("32", "32-true", "bf16-mixed") or config.trainer.accelerator != "cpu":
        raise UserError("benchmark=step: the bare loop runs on a CPU, with trainer.precision=32-true or bf16-mixed")
    config.name = config.run_name
    with heavy_imports():
        import torch
        from lightning.pytorch.callbacks import Callback

        from src.diagnostics.loggers import open_loggers
        from src.training.budget import plain_steps
        from src.training.module import build_optimizer
        from src.training.run import build_trainer, prepare

    prepared = prepare(config)
    config.trainer.max_epochs = -(-(steps + 2 * BLOCK) // prepared.steps_an_epoch)
    twin = prepare(config)  # its own model, from the same seed
    model, windows, clip = twin.module.model, twin.data.windows(), config.trainer.gradient_clip_val
    again = (window for _ in itertools.count() for window in windows)
    bare_step = plain_steps(model, build_optimizer(model, config.optimizer), again, clip, config.trainer.precision)
    seconds: dict[str, list[float]] = {"framework": [], "bare loop": []}

    class TakeTurns(Callback):
        """Time the framework's steps, and after each block of them as many bare steps."""

        started: float | None = None
        count = 0

        def on_train_batch_start(self, *_: Any) -> None:
            now = time.perf_counter()  # the previous step has ended here
            if self.started is not None and self.count % BLOCK != 1:
                seconds["framework"].append(now - self.started)
            if self.count % BLOCK == 0:
                seconds["bare loop"] += [next(bare_step) for _ in range(BLOCK)][1:]
            self.count += 1
            self.started = time.perf_counter()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.started = None  # leaves out the time between two epochs, and a validation

        on_validation_start = on_train_epoch_end  # type: ignore[assignment]

    with tempfile.TemporaryDirectory(prefix="unroll-benchmark-") as folder, logging_to(Path(os.devnull)):
        loggers, _ = open_loggers(config, Path(folder), {})
        built = build_trainer(config, Path(folder), prepared.corpus, prepared.steps_an_epoch, loggers)
        built.trainer.callbacks.insert(0, TakeTurns())  # type: ignore[attr-defined]
        built.trainer.fit(prepared.module, datamodule=prepared.data)
    found: dict[str, Any] = {key: getattr(config.model, key) for key in ("name", "hidden_size", "num_layers")}
    found |= {"seq_len": config.data.seq_len, "batch_size": config.data.batch_size, "threads": torch.get_num_threads()}
    # the first block of both warms up
    return found | summary({name: taken[BLOCK:] for name, taken in seconds.items()})


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return minima, medians and means in milliseconds, and the framework's ratio to the bare loop of each."""
    found: dict[str, Any] = {"steps": {name: len(taken) for name, taken in seconds.items()}}
    for kind, function in KINDS.items():
        ms = found[f"{kind}_ms"] = {name: function(taken) * 1e3 for name, taken in seconds.items()}
        found[f"{kind}_ratio"] = ms["framework"] / ms["bare loop"]
    return found


def table(found: dict[str, Any]) -> list[str]:
    """Return the table."""
    what = f"model={found['name']}, {found['num_layers']} x {found['hidden_size']} units, windows of {found['seq_len']}"
    rows = [[name, *(found[f"{kind}_ms"][name] for kind in KINDS), n] for name, n in found["steps"].items()]
    rows.append(["ratio", *(found[f"{kind}_ratio"] for kind in KINDS), ""])
    formats = {"a step of training": "", "min ms": ".3f", "median": ".3f", "mean": ".3f", "steps": ""}
    title = f"{what} x {found['batch_size']} streams; {counted(found['threads'], 'threads')}"
    return [title, *table_lines(formats, rows)]
