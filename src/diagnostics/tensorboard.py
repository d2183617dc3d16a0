"""The curves of training for every logger; TensorBoard's writer and its pages Custom Scalars and HParams."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from src.config.schema import Config, flatten, key_table, to_plain
from src.errors import typed
from src.files import read_json
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
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        start = {"group_name": name, "start_time_secs": time.time(), "hparams": dict(values)}
        summary = self._session(SESSION_START_INFO_TAG, session_start_info=start)
        # TensorBoard keeps the first row that it reads: here in the file that it reads first, which a resume replaces
        with (self.folder / "events.out.tfevents.0.hparams").open("wb") as file:
            writer = RecordWriter(file)
            for event in (Event(file_version="brain.Event:2"), Event(summary=summary)):
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


def literally(text: str) -> str:
    """Return Markdown that shows a text as it is: a fence longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def writers(trainer: pl.Trainer) -> list[RunTensorBoard]:
    """Return those loggers of a run that write for TensorBoard."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunTensorBoard)]


CHARTS = {  # of the page Custom Scalars: category -> chart -> patterns of the tags drawn in it
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
        for writer in writers(trainer) if trainer.global_step == 0 and trainer.is_global_zero else []:
            writer.experiment.add_custom_scalars(layout)


class RunMetrics(Protocol):
    """What is known of a run's metrics: the last ones, and those of the best validation."""

    final: dict[str, float]
    best: dict[str, Any] | None


class HParams(Callback):
    """Open the run's row at the start, close it at the end, with `best/...` and `final/...` of the metrics."""

    def __init__(self, config: Config, folder: Path, metrics: RunMetrics) -> None:
        self.config, self.folder, self.metrics = config, folder, metrics

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the keys of the configuration; a resumed run, whose keys may have changed, writes them again."""
        values = dict(hparams_of(to_plain(self.config)))
        for writer in writers(trainer) if trainer.is_global_zero else []:
            writer.session_start(row_name(self.config, self.folder), values)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        final, best = self.metrics.final, self.metrics.best or {}
        names = four_metrics("val" if "val/cross_entropy" in final else "train", 0.0, 0.0)
        point = {f"{which}/{name}": of[name] for which, of in (("best", best), ("final", final)) for name in names
                 if name in of}  # fmt: skip
        write_scalars(trainer, point, trainer.global_step)
        for writer in writers(trainer):
            writer.session_end(success=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the row of a run that failed; one that was stopped may be resumed."""
        for writer in writers(trainer) if isinstance(exception, Exception) else []:
            writer.session_end(success=False)


def hparams_of(config: Mapping[str, Any]) -> Iterator[tuple[str, bool | float | str]]:
    """Yield (key, value) of a plain configuration, for every key that can change the result.

    A key has one type in all runs: a number that may be null is written as text, and so is all else but numbers.
    """
    known = {key: about for key, about in key_table().items() if about.affects_result and key != "model._target_"}
    for key, value in flatten(config):
        if key in known and known[key].type in (bool, int, float) and not known[key].optional:
            yield key, value
        elif value != {} and (key in known or key.startswith("model.options.")):
            text = typed(value)
            yield key, text if text.strip() and text.isprintable() else repr(text)  # a newline would be a blank cell


def row_name(config: Config, folder: Path) -> str:
    """Return a run's name in the table: what is mostly compared, its overrides (a sweep's label), its folder's name."""
    model, optimizer = config.model, config.optimizer
    mostly = f"{model.name} {model.num_layers}x{model.hidden_size} {optimizer.name} lr={optimizer.lr:g}"
    path = folder / "run.json"
    record = read_json(path) if path.exists() else {}  # a benchmark of the training step keeps no record
    overrides = record.get("label") or " ".join(record.get("overrides", []))
    return f"{mostly} seed={config.seed} {overrides} {folder.name}"
