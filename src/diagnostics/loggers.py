"""Writes a run's curves, figures, texts and configuration to Lightning's loggers, one or several at once.

A file of conf/logger/ names the class of a logger (`_target_`) and its arguments; what is null is filled in here.
The events of TensorBoard and metrics.csv lie in the run's folder, and a resume cuts them back to its checkpoint. wandb
and mlflow have stores of their own, where nothing can be cut off: a resumed run goes on in the same run of the store,
whose id is in run.json (`loggers`), and repeated steps are there twice.
"""

from __future__ import annotations

import csv
import html
import importlib
import inspect
import io
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from src.config.schema import Config, flatten
from src.errors import UserError, first_line, typed
from src.files import lock
from src.metrics import four_metrics
from src.models.language_model import WindowLoss

log = logging.getLogger(__name__)
REMEMBERED = ("id", "project", "entity", "run_id", "tracking_uri")  # arguments with which a resumed run finds its own
MLFLOW_STATUS = {"done": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class RunCSV(Logger):
    """Lines `step,tag,value`, appended to metrics.csv in the run's folder; Lightning's own deletes a resumed run's."""

    name = version = ""  # the run's folder is the name

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            rows = [[step, tag, value] for tag, value in metrics.items()]
            csv.writer(file).writerows(rows if file.tell() else [["step", "tag", "value"], *rows])

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without folders and `hparams.yaml` of its own; tags are as given, the first process writes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self.folder = folder

    def save(self) -> None:
        self.experiment.flush()

    @rank_zero_only
    def image(self, tag: str, png: bytes, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # a PNG's header says its size
        image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=4)
        self.add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    @rank_zero_only
    def text(self, tag: str, text: str, step: int) -> None:
        """Write a text that is shown as it is, markup included, with its long lines broken."""
        from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]

        self.add(text_pb(tag, literally(wrapped(text))), step)

    @rank_zero_only
    def histogram(self, tag: str, values: np.ndarray, step: int, bins: int = 40) -> None:
        values = values[np.isfinite(values)].astype(np.float64)  # single precision has no 40 bins a few ulps apart
        if values.size:
            self.experiment.add_histogram(tag, values, step, bins)

    @rank_zero_only
    def vectors(self, name: str, vectors: np.ndarray, labels: Sequence[str]) -> None:
        """Put vectors (points, dimensions) with a label each into the page Projector, in place of earlier ones."""
        folder = self.folder / "projector"
        folder.mkdir(exist_ok=True)
        np.savetxt(folder / f"{name}.tsv", vectors, "%.6g", "\t")
        (folder / f"{name}_labels.tsv").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (self.folder / "projector_config.pbtxt").write_text(
            f'embeddings {{\n  tensor_name: "{name}"\n  tensor_path: "projector/{name}.tsv"\n'
            f'  metadata_path: "projector/{name}_labels.tsv"\n}}\n'
        )

    def add(self, summary: Any, step: int) -> None:
        self.experiment.file_writer.add_summary(summary, step)


def wrapped(text: str, columns: int = 80) -> str:
    """Return a text with lines of at most `columns` characters, broken after a blank where there is one."""
    return re.sub(rf"(?=.{{{columns + 1}}})(.{{0,{columns - 1}}} |.{{{columns}}})", r"\1\n", text)


def literally(text: str) -> str:
    """Return Markdown that shows a text as it is: a fence longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def writers(trainer: pl.Trainer) -> list[RunTensorBoard]:
    """Return those loggers of a run that write for TensorBoard."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunTensorBoard)]


def logger_class(name: str, node: Mapping[str, Any]) -> type[Logger]:
    """Return the class of `logger.<name>`; UserError if there is no such logger, or it lacks an argument."""
    module, _, attribute = str(node["_target_"]).rpartition(".")
    found = getattr(importlib.import_module(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, Logger)):
        raise UserError(f"logger.{name}._target_={node['_target_']}: there is no such logger; see conf/logger")
    known = inspect.signature(found).parameters
    wrong = [] if "kwargs" in known else [key for key in node if key != "_target_" and key not in known]
    if wrong:
        raise UserError(*(f"logger.{name}.{key}: {attribute} has only {', '.join(known)}" for key in wrong))
    return found


def open_loggers(config: Config, folder: Path, known: Mapping[str, Any]) -> tuple[list[Logger], dict[str, Any]]:
    """Return a run's loggers, and what run.json keeps of each (`known`, if resumed); UserError if one fails to open."""
    opened: list[Logger] = []
    kept: dict[str, Any] = {}
    for name, node in config.logger.items():
        kind = logger_class(name, node)
        given = {key: value for key, value in node.items() if key != "_target_" and value is not None}
        given = {**_defaults(kind, config, folder), **known.get(name, {}), **given}
        try:
            if issubclass(kind, MLFlowLogger):
                with lock(Path(config.runs) / ".mlflow.lock", wait=True):  # two jobs must not both make the database
                    logger: Any = kind(**given)
                    given["run_id"] = logger.run_id
                logger.experiment.update_run(given["run_id"], "RUNNING")
            else:
                logger = kind(**given)
                _ = isinstance(logger, WandbLogger) and logger.experiment  # which else is opened at its first use
            opened.append(logger)
        except Exception as error:
            close_loggers(opened, "failed")
            raise UserError(f"logger.{name} ({kind.__name__}) cannot be opened: {first_line(error)}") from error
        kept |= {name: found} if (found := {key: given[key] for key in REMEMBERED if key in given}) else {}
    return opened, kept


def _defaults(kind: type[Logger], config: Config, folder: Path) -> dict[str, Any]:
    runs, title = Path(config.runs).resolve(), f"{folder.parent.name}/{folder.name}"
    if issubclass(kind, WandbLogger):
        return {"save_dir": runs, "project": "unroll", "name": title, "id": secrets.token_hex(4)}
    if issubclass(kind, MLFlowLogger):
        found = {"experiment_name": config.run_name, "run_name": title}
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            return {**found, "tracking_uri": uri}
        return {**found, "tracking_uri": f"sqlite:///{runs / 'mlflow.db'}", "artifact_location": str(runs / "mlruns")}
    return {key: folder for key in ("folder", "save_dir") if key in inspect.signature(kind).parameters}


def close_loggers(loggers: Sequence[Logger], status: str) -> None:
    """Tell the stores how the run ended; a failure is only logged."""
    for logger in loggers:
        try:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=int(status != "done"))
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.set_terminated(logger.run_id, MLFLOW_STATUS[status])
        except Exception as error:
            log.warning("%s could not be closed: %s", type(logger).__name__, error)


def write_scalars(trainer: pl.Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Write scalars to every logger of the run; `step` is the number of optimizer steps made before."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step)


def last_window(trainer: pl.Trainer, loss: WindowLoss) -> dict[str, float]:
    """Return `train/loss` and the four metrics of a training window, over all processes: each has to call it."""
    characters = max(1, int(loss.everywhere))
    share = int(loss.characters) / characters
    sums = [loss.minimised.item() / trainer.world_size, float(loss.mean()) * share, float(loss.hits()) / characters]
    if trainer.world_size > 1:
        mine = torch.tensor(sums, dtype=torch.float64, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(mine)
        sums = mine.tolist()
    minimised, nats, accuracy = sums
    return {"train/loss": minimised, **four_metrics("train", nats, accuracy)}


class ScalarLogger(Callback):
    """Write the `train/...` scalars every `every_n_steps` optimizer steps, the first at step 0.

    No number is fetched from the device on the steps between. A point shows the (last) loss before its step.
    """

    state_key = "scalars"

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self.last_point: tuple[float, float, int] | None = None  # seconds, characters, step of the point before
        self.since = 0
        self.latest: dict[str, float] = {}
        self.constant: dict[str, float] = {}  # baselines: a point at the first step and one at the last make a line
        self.steps_before = 0  # optimizer steps made before this batch
        self.seconds = self.begun = 0.0  # of the steps so far; when this one began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0 and self.constant:  # a resumed run has begun these lines
            write_scalars(trainer, self.constant, 0)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step and self.constant:
            write_scalars(trainer, self.constant, trainer.global_step)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.steps_before = trainer.global_step
        pl_module.norm_wanted = self.steps_before % self.every_n_steps == 0
        if self.last_point is None:
            self.last_point = (self.seconds, float(pl_module.characters), self.since)
        self.begun = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.seconds += time.perf_counter() - self.begun  # without validations, figures and checkpoints between steps
        if self.steps_before % self.every_n_steps == 0 and trainer.global_step > self.steps_before:
            self.latest = self._point(trainer, pl_module, self.steps_before)
            write_scalars(trainer, self.latest, self.steps_before)

    def state_dict(self) -> dict[str, Any]:
        """Since which step the clip rate is counted, and the last point; the clock starts anew."""
        return {"since": self.last_point[2] if self.last_point else self.since, "latest": self.latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.since, self.latest = state_dict["since"], dict(state_dict.get("latest", {}))

    def _point(self, trainer: pl.Trainer, module: Any, step: int) -> dict[str, float]:
        assert self.last_point is not None
        seconds, characters = self.seconds, float(module.characters)
        seconds_before, characters_before, since = self.last_point
        point = last_window(trainer, module.outcome)
        if isinstance(module.grad_norm, Tensor):
            point["train/grad_norm"] = float(module.grad_norm)
        if trainer.gradient_clip_val is not None:
            point["train/clip_rate"] = float(module.clipped_steps) / max(1, step + 1 - since)
            module.clipped_steps = 0.0
        point["train/characters_per_second"] = (characters - characters_before) / max(1e-9, seconds - seconds_before)
        point["optimizer/learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.last_point = (seconds, characters, step + 1)
        return point


def take_figures(trainer: pl.Trainer) -> bool:
    """Whether a logger of the run takes pictures."""
    return any(isinstance(logger, RunTensorBoard | WandbLogger | MLFlowLogger) for logger in trainer.loggers)


def log_figure(trainer: pl.Trainer, tag: str, png: bytes, step: int) -> None:
    """Write a picture to each logger that takes pictures."""
    from PIL import Image

    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.image(tag, png, step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(tag, [Image.open(io.BytesIO(png))], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, Image.open(io.BytesIO(png)), key=tag, step=step)


def log_text(trainer: pl.Trainer, tag: str, text: str, step: int) -> None:
    """Write a text, as it is, to each logger that takes texts."""
    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.text(tag, text, step)
        elif isinstance(logger, WandbLogger):
            import wandb  # type: ignore[import-not-found, unused-ignore]

            shown = wandb.Html(f"<pre style='white-space: pre-wrap'>{html.escape(text)}</pre>", inject=False)
            logger.log_metrics({tag: shown}, step)  # type: ignore[dict-item]
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(logger.run_id, text, f"{tag}/step_{step:06d}.txt")


def log_configuration(logger: Logger, plain: Mapping[str, Any]) -> None:
    """Write the whole configuration; in mlflow, which keeps the values of the first start, new ones become tags."""
    if not isinstance(logger, MLFlowLogger):
        logger.log_hyperparams(dict(plain))
        return
    values = {key: typed(value)[:250] for key, value in flatten(plain)}  # 250: the limit of Lightning's logger
    before = logger.experiment.get_run(logger.run_id).data.params
    logger.log_hyperparams({key: value for key, value in values.items() if key not in before})
    for key in before.keys() & values.keys():
        if before[key] != values[key]:
            logger.experiment.set_tag(logger.run_id, key, values[key])
