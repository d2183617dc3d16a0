"""The table HParams: one row a run, named so that a person can tell it apart, with its best and final metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from src.config.schema import Config, to_plain
from src.diagnostics.scalar_logger import write_scalars
from src.diagnostics.tensorboard import writers
from src.training.metrics_log import History
from src.training.run_record import Record

# Groups and keys that say where and how a run is shown, not what was trained.
LEFT_OUT = (
    "name", "runs", "sweep", "callbacks", "logger", "checkpoint", "early_stopping", "data.root", "model._target_",
)  # fmt: skip
# Numbers that may be left out: written as words, so that a key has one type in all runs, None being the word "None".
MAY_BE_NONE = (
    "seed",
    "model.interlayer_scale",
    "optimizer.eps",
    "optimizer.momentum",
    "optimizer.nesterov",
    "optimizer.alpha",
    "scheduler.total_steps",
    "trainer.gradient_clip_val",
    "trainer.min_epochs",
)
OWN_WORDS = "model.options."  # of a cell of one's own: nobody knows their types, so all are words
FOUR = ("cross_entropy", "bits_per_character", "perplexity", "accuracy")


class HParams(Callback):
    """Open the row at the start, close it at the end, with `best/...` and `final/...` of the metrics.

    Args:
        config: the whole configuration.
        folder: the run's folder, whose name makes the row's unique.
        history: knows the best and the final metrics.
    """

    def __init__(self, config: Config, folder: Path, history: History) -> None:
        self.config, self.folder, self.history = config, folder, history
        self.told: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the words of the configuration; in a run that goes on only if some have changed."""
        words = dict(flat(to_plain(self.config)))
        for writer in writers(trainer.loggers) if words != self.told else []:
            writer.started(row_name(own_words(self.folder), self.config, self.folder), words)
            self.told = words

    def state_dict(self) -> dict[str, Any]:
        """The words that the row has."""
        return {"told": self.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.told = dict(state_dict["told"])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the metrics and close the row."""
        final, best = self.history.final, self.history.best or {}
        stage = "val" if "val/cross_entropy" in final else "train"
        names = [f"{stage}/{metric}" for metric in FOUR]
        point = {f"best/{name}": best[name] for name in names if name in best}
        point |= {f"final/{name}": final[name] for name in names if name in final}
        write_scalars(trainer, point, trainer.global_step)
        for writer in writers(trainer.loggers):
            writer.ended(well=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the row of a run that failed; one that was stopped goes on some day."""
        if isinstance(exception, Exception):
            for writer in writers(trainer.loggers):
                writer.ended(well=False)


def own_words(folder: Path) -> list[str]:
    """Return what tells a run from others, as its record has it: in a sweep its label there, else its overrides."""
    try:
        entries = Record.read(folder).entries
    except (OSError, ValueError):
        return []
    label = entries.get("label")
    return label.split() if label else list(entries.get("overrides", []))


def row_name(words: Sequence[str], config: Config, folder: Path) -> str:
    """Return what a run is called in the table: its own words, what is mostly compared, and its folder's name.

    The table shows the first letters only, so a word is short: `manual hidden_size=64` for model=manual
    model.hidden_size=64, and those that say where and how a run is shown are left out.
    """
    told = []
    for word in words:
        key, _, value = word.partition("=")
        if not any(key == left or key.startswith(f"{left}.") for left in (*LEFT_OUT, "data.path")):
            group = key in config and isinstance(config[key], Mapping)
            told.append(value if group else f"{key.rpartition('.')[2]}={value}")
    model, optimizer = config.model, config.optimizer
    size = f"{model['num_layers']}x{model['hidden_size']}"
    mostly = f"{model['name']} {size} {optimizer['name']} lr={optimizer['lr']:g} seed={config['seed']}"
    return " ".join([*told, f"({mostly})" if told else mostly, folder.name])


def flat(config: Config, prefix: str = "") -> Iterator[tuple[str, bool | float | str]]:
    """Yield dotted key, value, for every key that says what was trained; each key always with the same type."""
    for key, value in config.items():
        name = prefix + str(key)
        if name in LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif isinstance(value, bool | int | float) and name not in MAY_BE_NONE and not name.startswith(OWN_WORDS):
            yield name, value
        else:
            text = str(value)
            yield name, text if text.strip() and text.isprintable() else repr(text)  # a newline would be a blank cell
