"""Where curves, figures, texts and the configuration of a run go: Lightning's loggers, one or several at once.

A file of conf/logger/ names the class of a logger (`_target_`) and its arguments; what is null is filled in here.
The events of TensorBoard and metrics.csv lie in the run's folder, and a resume cuts them back to its checkpoint. wandb
and mlflow have stores of their own, where nothing can be cut off: a resumed run goes on in the same run of the store,
whose id is in run.json (`loggers`), and what was made twice is there twice.
"""

from __future__ import annotations

import csv
import html
import importlib
import inspect
import io
import logging
import os
import secrets
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.config.schema import Config, flatten, key_table, to_plain
from src.diagnostics.tensorboard import RunTensorBoard, write_scalars
from src.errors import UserError, typed
from src.files import lock, read_json
from src.metrics import four_metrics

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


# -- opened and closed ------------------------------------------------------------------------------------------------


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
    """Return the loggers of the run in `folder`, and what run.json keeps of each: `known`, when the run is resumed.

    Raises:
        UserError: a logger cannot be opened, with its own message.
    """
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
            what = str(error).strip().partition("\n")[0]
            raise UserError(f"logger.{name} ({kind.__name__}) cannot be opened: {what}") from error
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
    """Tell the stores how the run ended; one that cannot be reached now is reported, and the run is as it is."""
    for logger in loggers:
        try:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=int(status != "done"))
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.set_terminated(logger.run_id, MLFLOW_STATUS[status])
        except Exception as error:
            log.warning("%s could not be closed: %s", type(logger).__name__, error)


# -- what is written --------------------------------------------------------------------------------------------------


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


class RunMetrics(Protocol):
    """What is known of a run's metrics: the last ones, and those of the best validation."""

    final: dict[str, float]
    best: dict[str, Any] | None


class HParams(Callback):
    """Write the configuration at the start, and `best/...` and `final/...` of the metrics at the end.

    In TensorBoard this opens the run's row of the page HParams, and closes it.
    """

    def __init__(self, config: Config, folder: Path, metrics: RunMetrics) -> None:
        self.config, self.folder, self.metrics = config, folder, metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the keys of the configuration; a resumed run, whose keys may have changed, writes them again."""
        plain, path = to_plain(self.config), self.folder / "run.json"
        record = read_json(path) if path.exists() else {}  # a benchmark of the training step keeps no record
        values = dict(hparams_of(plain))
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, RunTensorBoard):
                logger.session_start(row_name(self.config, record, self.folder), values, first_columns(record, values))
            else:
                log_configuration(logger, plain)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        final, best = self.metrics.final, self.metrics.best or {}
        names = four_metrics("val" if "val/cross_entropy" in final else "train", 0.0, 0.0)
        point = {f"{which}/{name}": of[name] for which, of in (("best", best), ("final", final)) for name in names
                 if name in of}  # fmt: skip
        write_scalars(trainer, point, trainer.global_step)
        self._close(trainer, success=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the row of a run that failed; one that was stopped may be resumed."""
        if isinstance(exception, Exception):
            self._close(trainer, success=False)

    def _close(self, trainer: pl.Trainer, success: bool) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunTensorBoard):
                logger.session_end(success)


def hparams_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of a plain configuration, for every key that can change the result.

    As text, also of numbers, of which TensorBoard shows five digits: `seed 0.0000`, `hidden_size 8.0000`.
    """
    known = {key for key, about in key_table().items() if about.affects_result and key != "model._target_"}
    for key, value in flatten(config):
        if value != {} and (key in known or key.startswith("model.options.")):
            text = f"{value:.6g}" if isinstance(value, float) else typed(value)
            yield key, text if text.strip() and text.isprintable() else repr(text)  # a newline would be a blank cell


def row_name(config: Config, record: Mapping[str, Any], folder: Path) -> str:
    """Return a run's name in the table: what is mostly compared, its overrides, its folder's name."""
    model, optimizer = config.model, config.optimizer
    mostly = f"{model.name} {model.num_layers}x{model.hidden_size} {optimizer.name} lr={optimizer.lr:g}"
    overrides = record.get("label") or " ".join(record.get("overrides", []))
    if "key" in record and folder.name != record["key"]:
        overrides = ""  # the name of the folder has them
    return " ".join(filter(None, [mostly, f"seed={config.seed}", overrides, folder.name]))


def first_columns(record: Mapping[str, Any], known: Container[str]) -> list[str]:
    """Return the keys that the table shows at first: those of the overrides, a sweep's that differ, else the usual."""
    given = [one.partition("=")[0].lstrip("+") for one in record.get("overrides", [])]
    if label := record.get("label"):
        given = [key for key in given if f"{key}=" in label]
    keys = [key if "." in key or key == "seed" else f"{key}.name" for key in given]
    keys += ["model.name", "model.hidden_size", "model.num_layers", "optimizer.lr", "seed"]
    return list(dict.fromkeys(key for key in keys if key in known))[:5]
