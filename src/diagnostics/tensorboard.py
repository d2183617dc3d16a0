"""The one module that talks to TensorBoard: events straight in the run's folder."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

Charts = Mapping[str, Mapping[str, Sequence[str]]]  # category -> chart -> patterns of the tags drawn in it


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without folders of its own and without its `hparams.yaml` (config.yaml says more).

    What is written beside scalars goes under exactly the tag that is given; torch's own methods add words to some.
    Only the first of several processes writes.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self.folder = folder

    def save(self) -> None:
        """Bring to the disk what was written so far."""
        self.experiment.flush()

    @rank_zero_only
    def image(self, tag: str, png: bytes, step: int) -> None:
        """Write a picture, PNG as it is."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # a PNG's header says its size
        image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=4)
        self._write(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    @rank_zero_only
    def text(self, tag: str, text: str, step: int) -> None:
        """Write a text to be shown as it is, markup and all."""
        from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]

        self._write(text_pb(tag, literally(text)), step)

    @rank_zero_only
    def histogram(self, tag: str, values: np.ndarray, step: int, bins: int = 40) -> None:
        """Write the distribution of the finite ones among `values`."""
        values = values[np.isfinite(values)].astype(np.float64)  # single precision has no 40 bins a few ulps apart
        if values.size:
            counts, edges = np.histogram(values, bins)
            self.experiment.add_histogram_raw(
                tag, float(values.min()), float(values.max()), values.size, float(values.sum()),
                float(np.square(values).sum()), edges[1:].tolist(), counts.tolist(), step,
            )  # fmt: skip

    @rank_zero_only
    def layout(self, charts: Charts) -> None:
        """Say which curves the page Custom Scalars draws together; one run's word is enough for a whole folder."""
        lines = {name: {title: ["Multiline", list(tags)] for title, tags in of.items()} for name, of in charts.items()}
        self.experiment.add_custom_scalars(lines)

    @rank_zero_only
    def started(self, name: str, words: Mapping[str, bool | float | str]) -> None:
        """Open the run's row in the table HParams.

        No word about the whole experiment is written: with it, the table would take its columns from one arbitrary
        run. Without it, the columns are the union of all runs' words, and every scalar is a metric.
        """
        from tensorboard.plugins.hparams import metadata  # type: ignore[import-untyped]
        from tensorboard.plugins.hparams.plugin_data_pb2 import (  # type: ignore[import-untyped]
            HParamsPluginData,
            SessionStartInfo,
        )

        start = SessionStartInfo(group_name=name, start_time_secs=time.time())
        for word, value in words.items():
            kind = "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
            setattr(start.hparams[word], f"{kind}_value", value)
        self._write_plugin(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))

    @rank_zero_only
    def ended(self, well: bool) -> None:
        """Close the row: the run is done, or it failed."""
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

        status = api_pb2.STATUS_SUCCESS if well else api_pb2.STATUS_FAILURE
        end = SessionEndInfo(status=status, end_time_secs=time.time())
        self._write_plugin(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))

    @rank_zero_only
    def vectors(self, name: str, vectors: np.ndarray, labels: Sequence[str]) -> None:
        """Put vectors (points, dimensions) with a label each into the page Projector, in place of earlier ones."""
        place = self.folder / "projector"
        place.mkdir(exist_ok=True)
        rows = ("\t".join(f"{x:.6g}" for x in row) for row in vectors.tolist())
        (place / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        (place / f"{name}_labels.tsv").write_text("\n".join(labels) + "\n", encoding="utf-8")
        (self.folder / "projector_config.pbtxt").write_text(
            f'embeddings {{\n  tensor_name: "{name}"\n  tensor_shape: {vectors.shape[0]}\n'
            f'  tensor_shape: {vectors.shape[1]}\n  tensor_path: "projector/{name}.tsv"\n'
            f'  metadata_path: "projector/{name}_labels.tsv"\n}}\n',
            encoding="utf-8",
        )

    def _write_plugin(self, tag: str, data: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata

        about = metadata.create_summary_metadata(data)
        self._write(Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)]), 0)

    def _write(self, summary: Any, step: int) -> None:
        self.experiment._get_file_writer().add_summary(summary, step)


def literally(text: str) -> str:
    """Return Markdown that shows a text as it is: a fence longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def writers(loggers: Sequence[Any]) -> list[RunTensorBoard]:
    """Return those loggers of a run that write for TensorBoard."""
    return [logger for logger in loggers if isinstance(logger, RunTensorBoard)]


# ---- Which curves share a chart on TensorBoard's page Custom Scalars.

CHARTS = {
    "learning": {
        "bits a character: train, val and what to beat": [
            r"^(train|val)/bits_per_character$",
            r"^baseline/(uniform|unigram|ngram_5)$",
        ],
        "accuracy": [r"^(train|val)/accuracy$"],
        "a fresh state against the carried one, nats a character": [r"^window/cross_entropy_(carried|fresh)$"],
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
}


class Layout(Callback):
    """Tell TensorBoard's page Custom Scalars what to draw together: train against val, and the baselines with them."""

    def __init__(self) -> None:
        self.told = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Once a run, before its first step; one that goes on has told it."""
        for writer in writers(trainer.loggers) if not self.told else []:
            writer.layout(CHARTS)
            self.told = True

    def state_dict(self) -> dict[str, Any]:
        """Whether it is told."""
        return {"told": self.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.told = state_dict["told"]
