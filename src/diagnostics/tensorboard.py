"""TensorBoard's pages HParams, a row a run, and Custom Scalars, what it draws together."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.config.schema import MEASURES, Config, flatten, key_table, to_plain
from src.diagnostics.loggers import RunTensorBoard, log_configuration, write_scalars, writers
from src.errors import typed
from src.files import read_json
from src.metrics import four_metrics

CHARTS = {  # of the page Custom Scalars: category -> chart -> patterns of the tags drawn in it
    "learning": {
        "val, bits per character, with the baselines": [r"^val/bits_per_character$",
                                                        r"^baseline/(uniform|unigram|ngram_5)$"],
        "train and val, bits per character": [r"^(train|val)/bits_per_character$"],
        "train and val, accuracy": [r"^(train|val)/accuracy$"],
        "a fresh state against the carried one, nats per character": [r"^window/cross_entropy_(carried|fresh)$"],
    },
    "the recurrent matrix": {
        "spectral radius of W": [r"^recurrent/spectral_radius/layer_\d+$"],
        "share of saturated units": [r"^recurrent/saturated/layer_\d+$"],
    },
    "the step": {
        "norm of the gradient, before clipping": [r"^train/grad_norm$"],
        "share of steps clipped": [r"^train/clip_rate$"],
        "learning rate": [r"^optimizer/learning_rate$"],
    },
}  # fmt: skip
STAGES = ("best/val", "final/val", "val", "best/train", "final/train", "train")
# Of the page HParams: the columns of metrics in this order; the first five are shown at first
METRICS = tuple(dict.fromkeys([
    "best/val/bits_per_character", "final/val/bits_per_character", "val/bits_per_character", "val/accuracy",
    "train/bits_per_character", *(f"{stage}/{name}" for name in MEASURES for stage in STAGES), "train/loss",
    "train/grad_norm", "train/clip_rate", "train/characters_per_second", "optimizer/learning_rate",
    "window/cross_entropy_carried", "window/cross_entropy_fresh",
    "baseline/ngram_5", "baseline/unigram", "baseline/uniform",
]))  # fmt: skip


class Layout(Callback):
    """Define the charts of the page Custom Scalars: train against val, with the baselines."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once per run, before its first step; one run is enough for a whole folder of runs."""
        layout = {name: {title: ["Multiline", tags] for title, tags in of.items()} for name, of in CHARTS.items()}
        for writer in writers(trainer) if trainer.global_step == 0 and trainer.is_global_zero else []:
            writer.experiment.add_custom_scalars(layout)


class HParams(Callback):
    """Write the configuration at the start, which opens TensorBoard's row of the run, and best and final metrics."""

    def __init__(self, config: Config, folder: Path, metrics: Any) -> None:
        self.config, self.folder = config, folder
        self.metrics = metrics  # src.training.metrics_log.MetricsLog

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the keys of the configuration; a resumed run, whose keys may have changed, writes them again."""
        plain, path = to_plain(self.config), self.folder / "run.json"
        record = read_json(path) if path.exists() else {}  # a benchmark of the training step keeps no record
        values = dict(hparams_of(plain))
        for logger in trainer.loggers if trainer.is_global_zero else []:
            if isinstance(logger, RunTensorBoard):
                name, shown = row_name(self.config, record, self.folder), first_columns(record, values)
                open_row(self.folder, name, values, shown)
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
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG  # type: ignore[import-untyped]

        end = {"status": "STATUS_SUCCESS" if success else "STATUS_FAILURE", "end_time_secs": time.time()}
        for writer in writers(trainer) if trainer.is_global_zero else []:
            writer.add(row_summary(SESSION_END_INFO_TAG, session_end_info=end), 0)


def hparams_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, value) of every key that can change the result, as text: TensorBoard shows seed 0 as `0.0000`."""
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


def open_row(folder: Path, name: str, values: Mapping[str, str], shown: Sequence[str]) -> None:
    """Open the run's row in the table HParams; of its keys, `shown` are ticked at first.

    TensorBoard takes the columns of an arbitrary run, so every run writes the same: all keys of the schema, METRICS.
    """
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_START_INFO_TAG
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

    row = {"group_name": name, "start_time_secs": time.time(), "hparams": dict(values)}
    every: dict[str, Any] = {"metric_infos": [{"name": {"tag": tag}} for tag in METRICS]}
    every["hparam_infos"] = [{"name": key, "type": "DATA_TYPE_STRING", "differs": key in shown} for key in values]
    both = [row_summary(EXPERIMENT_TAG, experiment=every), row_summary(SESSION_START_INFO_TAG, session_start_info=row)]
    # TensorBoard keeps the first row that it reads: here in the file that it reads first, which a resume replaces
    with (folder / "events.out.tfevents.0.hparams").open("wb") as file:
        writer = RecordWriter(file)
        for event in (Event(file_version="brain.Event:2"), *(Event(summary=one) for one in both)):
            writer.write(event.SerializeToString())


def row_summary(tag: str, **info: Any) -> Any:
    """Return an entry of a run's row as TensorBoard stores it."""
    from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # type: ignore[import-untyped]

    about = metadata.create_summary_metadata(ParseDict(info, plugin_data_pb2.HParamsPluginData()))
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])
