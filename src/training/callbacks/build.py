"""From the callbacks group of the configuration to the callbacks that watch a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from src.data.corpus import Corpus
from src.training.callbacks.confusions import Confusions
from src.training.callbacks.gallery import Gallery
from src.training.callbacks.gradient_flow import GradientFlow
from src.training.callbacks.hidden_states import HiddenStates
from src.training.callbacks.history import History
from src.training.callbacks.hparams import HParams
from src.training.callbacks.input_vectors import InputVectors
from src.training.callbacks.layout import Layout
from src.training.callbacks.loss_by_position import LossByPosition
from src.training.callbacks.recurrent_matrix import RecurrentMatrix
from src.training.callbacks.recurrent_scalars import RecurrentScalars
from src.training.callbacks.surprisal import Surprisal
from src.training.callbacks.text_samples import TextSamples
from src.training.callbacks.watcher import Watcher
from src.training.callbacks.watching import Watching

PLAIN: tuple[type[Watcher], ...] = (
    RecurrentScalars,
    RecurrentMatrix,
    GradientFlow,
    LossByPosition,
    HiddenStates,
    Surprisal,
    Confusions,
    InputVectors,
)


def watchers(config: Mapping[str, Any], folder: Path, corpus: Corpus, history: History) -> list[Callback]:
    """Return the callbacks that are switched on.

    Args:
        config: the whole configuration.
        folder: the run's folder.
        corpus: whose vocabulary labels what is shown.
        history: knows the best and the final metrics.
    """
    words = config["callbacks"]
    if config["logger"]["name"] == "none" and not words["save_figures"]:
        return []  # nobody would see anything
    gallery = Gallery(folder, corpus.vocabulary.symbols, words["save_figures"])
    found: list[Callback] = []
    for kind in PLAIN:
        if words[kind.name]["enabled"]:
            found.append(kind(gallery, words[kind.name]["every_n_steps"]))
    samples = words["text_samples"]
    if samples["enabled"]:
        given = [samples[word] for word in ("temperatures", "length", "prompt")]
        found.append(TextSamples(gallery, samples["every_n_steps"], corpus, *given))
    if words["layout"]["enabled"]:
        found.append(Layout())
    if words["hparams"]["enabled"]:
        found.append(HParams(config, folder, history))
    return [Watching(found)] if found else []
