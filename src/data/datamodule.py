"""The loaders, made where Lightning asks for them: only then does a process know its rank among several."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from src.data.batching import Window, Windows, evaluation_windows
from src.data.corpus import Corpus


class TextData(pl.LightningDataModule):
    """The windows of a corpus: `train` as the configuration says, `val` in parallel streams.

    Args:
        corpus: an open corpus.
        seq_len, batch_size, offset, reset: as in the `data` group.
        evaluation_streams: parallel streams of a validation during training.
        seed: of the offsets (the run's seed).
        limit: windows an epoch, where fewer than all are wanted.
    """

    def __init__(
        self,
        corpus: Corpus,
        seq_len: int,
        batch_size: int,
        offset: str,
        reset: str,
        evaluation_streams: int,
        seed: int,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.seq_len, self.batch_size, self.offset, self.reset = seq_len, batch_size, offset, reset
        self.evaluation_streams, self.seed, self.limit = evaluation_streams, seed, limit
        self.loader: Windows | None = None
        self.position: dict[str, Any] | None = None  # of a checkpoint

    def windows(self, rank: int = 0, world_size: int = 1) -> Windows:
        """The training windows of one process."""
        return Windows(
            self.corpus.splits["train"],
            self.seq_len,
            self.batch_size,
            offset=self.offset,
            reset=self.reset,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            limit=self.limit,
        )

    def val_windows(self) -> Windows | None:
        """The validation's windows, or None where the corpus has no val. Every process reads all of them."""
        if "val" not in self.corpus.splits:
            return None
        return evaluation_windows(self.corpus.splits["val"], self.seq_len, self.evaluation_streams)

    def described(self) -> dict[str, dict[str, int]]:
        """For the record: streams side by side, transitions that an epoch's windows score, transitions they drop."""
        splits = {"train": self.windows(), "val": self.val_windows()}
        return {name: windows.described() for name, windows in splits.items() if windows is not None}

    def train_dataloader(self) -> Windows:
        """Lightning's hook."""
        assert self.trainer is not None
        self.loader = self.windows(self.trainer.global_rank, self.trainer.world_size)
        if self.position is not None:
            self.loader.load_state_dict(self.position)
        return self.loader

    def transfer_batch_to_device(self, batch: Window, device: torch.device, dataloader_idx: int) -> Window:
        """Move a window; one that is there Lightning would take apart and put together again, at every step."""
        if batch.inputs.device == device:
            return batch
        there: Window = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return there

    def state_dict(self) -> dict[str, Any]:
        """The loader's place. Lightning keeps it too, and gives it back in mid-epoch only: the epoch would be lost."""
        return self.loader.state_dict() if self.loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the place back, for the loader that is made next."""
        self.position = state_dict or None

    def val_dataloader(self) -> Windows | list[Windows]:
        """Lightning's hook; where there is nothing to validate on, the trainer is told not to ask."""
        return self.val_windows() or []
