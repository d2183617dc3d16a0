"""The training and validation windows as Lightning asks for them: only then does a process know its rank."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from src.config.schema import DataConfig
from src.data.batching import Window, Windows, evaluation_windows
from src.data.corpus import Corpus


class TextData(pl.LightningDataModule):
    """The windows of `train` as the configuration says, of `val` in streams; `limit`: windows an epoch, if not all."""

    def __init__(self, corpus: Corpus, config: DataConfig, seed: int, limit: int | None = None) -> None:
        super().__init__()
        self.corpus, self.config, self.seed, self.limit = corpus, config, seed, limit
        self.loader: Windows | None = None
        self.position: dict[str, Any] | None = None  # the state of a loader that a checkpoint has stored

    def windows(self, rank: int = 0, world_size: int = 1) -> Windows:
        return Windows(
            self.corpus.splits["train"],
            *self.config.window,
            offset=self.config.offset,
            reset=self.config.reset,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            limit=self.limit,
            noise=self.config.noise or 0.0,
        )

    def val_windows(self) -> Windows | None:
        """Return the windows of a validation, the same in every process, or None if the corpus has no val."""
        val, config = self.corpus.splits.get("val"), self.config
        streams, warmup = config.evaluation_streams, config.evaluation_warmup
        return None if val is None else evaluation_windows(val, config.window[0], streams, warmup)

    def described(self) -> dict[str, dict[str, int]]:
        """Return for the run's record the streams of all processes, and what an epoch without a limit scores."""
        splits = {"train": self.windows(), "val": self.val_windows()}
        keys = ("streams", "scored", "dropped")
        return {name: {key: getattr(part, key) for key in keys} for name, part in splits.items() if part is not None}

    def train_dataloader(self) -> Windows:
        assert self.trainer is not None
        self.loader = self.windows(self.trainer.global_rank, self.trainer.world_size)
        if self.position is not None:
            self.loader.load_state_dict(self.position)
        return self.loader

    def val_dataloader(self) -> Windows | list[Windows]:
        return self.val_windows() or []

    def transfer_batch_to_device(self, batch: Window, device: torch.device, dataloader_idx: int) -> Window:
        """Copy a window; to a GPU from pinned memory, without waiting for what the GPU does."""

        def moved(ids: torch.Tensor) -> torch.Tensor:
            return ids.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else ids.to(device)

        allowed = None if batch.allowed is None else moved(batch.allowed)
        return batch._replace(inputs=moved(batch.inputs), targets=moved(batch.targets), allowed=allowed)

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's position. Lightning restores it in mid-epoch only, and would lose the epoch's number."""
        return self.loader.state_dict() if self.loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.position = state_dict or None
