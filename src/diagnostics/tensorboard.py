"""TensorBoard: the writer, and what the pages Custom Scalars and HParams show."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from src.config.schema import Config, flatten, key_table, to_plain
from src.files import read_json


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without folders of its own and without its `hparams.yaml` (config.yaml says more).

    Images and texts get exactly the tag that is given; torch's own methods add to some tags. Only the first of several
    processes writes.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self.folder = folder

    def save(self) -> None:
        """Flush to the disk what was written so far."""
        self.experiment.flush()

    @rank_zero_only
    def image(self, tag: str, png: bytes, step: int) -> None:
        """Write a PNG."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # a PNG's header says its size
        image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=4)
        self._write(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    @rank_zero_only
    def text(self, tag: str, text: str, step: int) -> None:
        """Write a text that is shown as it is, markup included."""
        from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]

        self._write(text_pb(tag, literally(text)), step)

    @rank_zero_only
    def histogram(self, tag: str, values: np.ndarray, step: int, bins: int = 40) -> None:
        """Write the distribution of the finite values."""
        values = values[np.isfinite(values)].astype(np.float64)  # single precision has no 40 bins a few ulps apart
        if values.size:
            self.experiment.add_histogram(tag, values, step, bins)

    @rank_zero_only
    def session_start(self, name: str, values: Mapping[str, bool | float | str]) -> None:
        """Open the run's row in the table HParams.

        No summary of the whole experiment is written: with it, the table would take its columns from one arbitrary
        run. Without it, the columns are the union of all runs' keys, and every scalar is a metric.
        """
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # type: ignore[import-untyped]

        start = plugin_data_pb2.SessionStartInfo(group_name=name, start_time_secs=time.time())
        for key, value in values.items():
            kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            setattr(start.hparams[key], f"{kind}_value", value)
        self._session(metadata.SESSION_START_INFO_TAG, session_start_info=start)

    @rank_zero_only
    def session_end(self, success: bool) -> None:
        """Close the row: the run is done, or it failed."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        self._session(metadata.SESSION_END_INFO_TAG, session_end_info=end)

    @rank_zero_only
    def vectors(self, name: str, vectors: np.ndarray, labels: Sequence[str]) -> None:
        """Put vectors (points, dimensions) with a label each into the page Projector, in place of earlier ones."""
        folder = self.folder / "projector"
        folder.mkdir(exist_ok=True)
        np.savetxt(folder / f"{name}.tsv", vectors, "%.6g", "\t")
        (folder / f"{name}_labels.tsv").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (self.folder / "projector_config.pbtxt").write_text(
            f'embeddings {{\n  tensor_name: "{name}"\n  tensor_shape: {vectors.shape[0]}\n'
            f'  tensor_shape: {vectors.shape[1]}\n  tensor_path: "projector/{name}.tsv"\n'
            f'  metadata_path: "projector/{name}_labels.tsv"\n}}\n',
            encoding="utf-8",
        )

    def _session(self, tag: str, **info: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**info))
        self._write(Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)]), 0)

    def _write(self, summary: Any, step: int) -> None:
        self.experiment.file_writer.add_summary(summary, step)


def literally(text: str) -> str:
    """Return Markdown that shows a text as it is: a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def writers(loggers: Sequence[Any]) -> list[RunTensorBoard]:
    """Return those loggers of a run that write for TensorBoard."""
    return [logger for logger in loggers if isinstance(logger, RunTensorBoard)]


# -- the page Custom Scalars ------------------------------------------------------------------------------------------

CHARTS = {  # category -> chart -> patterns of the tags drawn in it
    "learning": {
        "bits per character: train, val and baselines": [
            r"^(train|val)/bits_per_character$", r"^baseline/(uniform|unigram|ngram_5)$",
        ],
        "accuracy": [r"^(train|val)/accuracy$"],
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


class Layout(Callback):
    """Tell the page Custom Scalars what to draw together: train against val, with the baselines."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once per run, before its first step; one run is enough for a whole folder of runs."""
        layout = {name: {title: ["Multiline", tags] for title, tags in of.items()} for name, of in CHARTS.items()}
        for writer in writers(trainer.loggers) if trainer.global_step == 0 and trainer.is_global_zero else []:
            writer.experiment.add_custom_scalars(layout)


# -- the page HParams -------------------------------------------------------------------------------------------------

HPARAMS = {key: about for key, about in key_table().items() if about.affects_result and key != "model._target_"}
METRICS = ("cross_entropy", "bits_per_character", "perplexity", "accuracy")


class RunMetrics(Protocol):
    """What is known of a run's metrics: the last ones, and those of the best validation."""

    final: dict[str, float]
    best: dict[str, Any] | None


class HParams(Callback):
    """Open the run's row at the start, close it at the end, with `best/...` and `final/...` of the metrics.

    Args:
        config: the whole configuration.
        folder: the run's folder; its name makes the row's name unique.
        metrics: read at the end.
    """

    def __init__(self, config: Config, folder: Path, metrics: RunMetrics) -> None:
        self.config, self.folder, self.metrics = config, folder, metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the keys of the configuration; a resumed run, whose keys may have changed, writes them again."""
        values = dict(hparams_of(to_plain(self.config)))
        for writer in writers(trainer.loggers):
            writer.session_start(row_name(overrides_of(self.folder), self.config, self.folder), values)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the metrics and close the row."""
        final, best = self.metrics.final, self.metrics.best or {}
        stage = "val" if "val/cross_entropy" in final else "train"
        names = [f"{stage}/{metric}" for metric in METRICS]
        point = {f"best/{name}": best[name] for name in names if name in best}
        point |= {f"final/{name}": final[name] for name in names if name in final}
        for logger in trainer.loggers:
            logger.log_metrics(point, trainer.global_step)
        for writer in writers(trainer.loggers):
            writer.session_end(success=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the row of a run that failed; one that was stopped may be resumed."""
        if isinstance(exception, Exception):
            for writer in writers(trainer.loggers):
                writer.session_end(success=False)


def hparams_of(config: Mapping[str, Any]) -> Iterator[tuple[str, bool | float | str]]:
    """Yield (key, value) of a plain configuration, for every key that can change the result.

    A key has one type in all runs: a number that may be null is written as text, and so is all else but numbers.
    """
    for key, value in flatten(config):
        known = HPARAMS.get(key)
        if known is not None and known.type in (bool, int, float) and not known.optional:
            yield key, value
        elif value != {} and (known is not None or key.startswith("model.options.")):
            text = str(value)
            yield key, text if text.strip() and text.isprintable() else repr(text)  # a newline would be a blank cell


def overrides_of(folder: Path) -> list[str]:
    """Return what tells a run from others according to its run.json: in a sweep its label, else its overrides."""
    try:
        record = read_json(folder / "run.json")
    except (OSError, ValueError):
        return []
    return str(record["label"]).split() if record.get("label") else list(record.get("overrides", []))


def row_name(overrides: Sequence[str], config: Config, folder: Path) -> str:
    """Return a run's name in the table: its overrides, what is mostly compared, and its folder's name.

    The table shows the first letters only, so overrides are shortened: `manual hidden_size=64` for model=manual
    model.hidden_size=64, and those that cannot change the result are left out.
    """
    shown = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if dataclasses.is_dataclass(getattr(config, key, None)):  # a group
            if any(known.startswith(f"{key}.") for known in HPARAMS):
                shown.append(value)
        elif key != "data.path" and (key in HPARAMS or key == "experiment" or key.startswith("model.options.")):
            shown.append(f"{key.rpartition('.')[2]}={value}")
    model, optimizer = config.model, config.optimizer
    size = f"{model.num_layers}x{model.hidden_size}"
    mostly = f"{model.name} {size} {optimizer.name} lr={optimizer.lr:g} seed={config.seed}"
    return " ".join([*shown, f"({mostly})" if shown else mostly, folder.name])
