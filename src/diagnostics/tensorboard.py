"""The curves of training for every logger; TensorBoard's writer and the layout of its page Custom Scalars."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from src.config.schema import MEASURES
from src.metrics import four_metrics
from src.models.language_model import WindowLoss


def write_scalars(trainer: pl.Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Write scalars to every logger of the run; `step` is the number of optimizer steps made before."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step)


def last_window(trainer: pl.Trainer, loss: WindowLoss) -> dict[str, float]:
    """Return `train/loss` and the four metrics of a training window, over the columns of all processes.

    A collective call: every process has to make it.
    """
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
            self.last_point = (time.perf_counter(), float(pl_module.characters), self.since)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
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
        seconds, characters = time.perf_counter(), float(module.characters)
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


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without folders of its own and without its `hparams.yaml` (config.yaml says more).

    Images and texts get exactly the tag that is given, and only the first of several processes writes.
    """

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
        self._write(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    @rank_zero_only
    def text(self, tag: str, text: str, step: int) -> None:
        """Write a text that is shown as it is, markup included, with its long lines broken."""
        from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]

        self._write(text_pb(tag, literally(wrapped(text))), step)

    @rank_zero_only
    def histogram(self, tag: str, values: np.ndarray, step: int, bins: int = 40) -> None:
        """Write the distribution of the finite values."""
        values = values[np.isfinite(values)].astype(np.float64)  # single precision has no 40 bins a few ulps apart
        if values.size:
            self.experiment.add_histogram(tag, values, step, bins)

    @rank_zero_only
    def session_start(self, name: str, values: Mapping[str, str], shown: Sequence[str]) -> None:
        """Open the run's row in the table HParams; of its keys, `shown` are ticked at first.

        TensorBoard takes the columns and their order from the experiment summary of an arbitrary run. So every run
        writes the same columns: all keys of the schema, and METRICS. Without it, baselines would come before val.
        """
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.plugins.hparams.metadata import (  # type: ignore[import-untyped]
            EXPERIMENT_TAG,
            SESSION_START_INFO_TAG,
        )
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        start = {"group_name": name, "start_time_secs": time.time(), "hparams": dict(values)}
        columns: dict[str, Any] = {"metric_infos": [{"name": {"tag": tag}} for tag in METRICS]}
        columns["hparam_infos"] = [{"name": key, "type": "DATA_TYPE_STRING", "differs": key in shown} for key in values]
        summaries = [
            self._session(EXPERIMENT_TAG, experiment=columns),
            self._session(SESSION_START_INFO_TAG, session_start_info=start),
        ]
        # TensorBoard keeps the first row that it reads: here in the file that it reads first, which a resume replaces
        with (self.folder / "events.out.tfevents.0.hparams").open("wb") as file:
            writer = RecordWriter(file)
            for event in (Event(file_version="brain.Event:2"), *(Event(summary=one) for one in summaries)):
                writer.write(event.SerializeToString())

    @rank_zero_only
    def session_end(self, success: bool) -> None:
        """Close the row: the run is done, or it failed."""
        from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG

        end = {"status": "STATUS_SUCCESS" if success else "STATUS_FAILURE", "end_time_secs": time.time()}
        self._write(self._session(SESSION_END_INFO_TAG, session_end_info=end), 0)

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

    def _session(self, tag: str, **info: Any) -> Any:
        from google.protobuf.json_format import ParseDict  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2  # type: ignore[import-untyped]

        about = metadata.create_summary_metadata(ParseDict(info, plugin_data_pb2.HParamsPluginData()))
        return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])

    def _write(self, summary: Any, step: int) -> None:
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


CHARTS = {  # of the page Custom Scalars: category -> chart -> patterns of the tags drawn in it
    "learning": {
        "val, bits per character, with the baselines": [
            r"^val/bits_per_character$", r"^baseline/(uniform|unigram|ngram_5)$",
        ],
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
    """Tell the page Custom Scalars what to draw together: train against val, with the baselines."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once per run, before its first step; one run is enough for a whole folder of runs."""
        layout = {name: {title: ["Multiline", tags] for title, tags in of.items()} for name, of in CHARTS.items()}
        for writer in writers(trainer) if trainer.global_step == 0 and trainer.is_global_zero else []:
            writer.experiment.add_custom_scalars(layout)
