"""Everything a run needs before it has a folder: the machine asked, the text opened, the model built."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from src.data.corpus import Corpus, open_corpus
from src.data.datamodule import TextData
from src.data.vocabulary import Vocabulary
from src.models.build import build_model
from src.training.checkpoint import FORMAT
from src.training.length import check_validations, run_steps, windows_an_epoch
from src.training.machine import check_machine, keep_memory, threads_for, use_threads
from src.training.module import LanguageModule
from src.training.places import with_places
from src.training.ranks import join_torchrun, rank, told_by_first, under_torchrun, world_size
from src.training.starting import check_growth, source_of, start_from
from src.training.together import leave_with_parent
from src.training.wanted import check_monitor, check_prompt, check_size

SEED = "UNROLL_SEED"  # the seed that process 0 has drawn, for the others
WINDOW_WORDS = ("seq_len", "batch_size", "offset", "reset", "evaluation_streams")


class Prepared(NamedTuple):
    """Everything a run needs and no folder yet."""

    corpus: Corpus
    data: TextData
    module: LanguageModule
    steps_an_epoch: int
    init_from: Mapping[str, Any] | None = None  # what the record says of the weights it started from


def prepare(config: dict[str, Any], threads: int | None = None, stored: Mapping[str, Any] | None = None) -> Prepared:
    """Open the text and build the model. Into `config` go a seed, where it has none, and paths that hold anywhere.

    Args:
        config: the whole configuration, checked, plain data.
        threads: how many threads a run that goes on had; None chooses.
        stored: what its checkpoint has under `unroll`; None for a run that begins, which reads `init_from`.

    Raises:
        Mistake, DataError: the machine lacks what was asked for, or the text cannot be used.
    """
    join_torchrun(config["trainer"])
    if rank() > 0:
        leave_with_parent()
    check_machine(config["trainer"])
    if config["seed"] is None:
        config["seed"] = drawn_seed()
    words = config["data"]
    source = source_of(config) if stored is None else None
    start = stored.get("init_from") if stored else None
    known = source.vocabulary if source else Vocabulary.from_plain(start["vocabulary"]) if start else None
    corpus = open_corpus(vocabulary=known, **{key: value for key, value in words.items() if key not in WINDOW_WORDS})
    check_prompt(config["callbacks"]["text_samples"], corpus.vocabulary)
    check_monitor(config, corpus.splits)
    config.update(with_places(config))  # only now: a mistake above is told in the user's own words
    if source:
        check_growth(source, corpus.vocabulary, words["unknown"])
    windows_as = {key: words[key] for key in WINDOW_WORDS}
    data = TextData(corpus, **windows_as, seed=config["seed"])
    data.limit = windows_an_epoch(config["trainer"], len(data.windows(world_size=world_size(config["trainer"]))))
    check_validations(config["trainer"], data.limit)
    check_size(config["model"], len(corpus.vocabulary))
    share = config["trainer"]["devices"] if world_size(config["trainer"]) > 1 else 1
    auto = threads_for(config["trainer"]["threads"], config["model"]["hidden_size"], share)
    use_threads(threads or auto)
    keep_memory()
    torch.manual_seed(config["seed"])
    model = build_model(config["model"], len(corpus.vocabulary))  # nothing draws from torch's generator before it
    if rank() > 0:
        torch.manual_seed(config["seed"] + rank())  # dropout must not repeat itself in another process's columns
    if source:
        start = start_from(model, source, corpus.vocabulary)
    steps_an_epoch = math.ceil(data.limit / config["trainer"]["accumulate_grad_batches"])
    steps = run_steps(config["trainer"], steps_an_epoch)
    words_of = (config["loss"]["over_time"], config["optimizer"], config["scheduler"])
    module = LanguageModule(model, *words_of, steps, config["checkpoint"]["mode"])
    vocabulary = corpus.vocabulary.to_plain()
    module.identity = {"format": FORMAT, "config": config, "vocabulary": vocabulary, "corpus": corpus.key}
    module.identity["init_from"] = start
    return Prepared(corpus, data, module, steps_an_epoch, start)


def drawn_seed() -> int:
    """Draw a seed, in process 0. Those that Lightning starts for it find it in their environment, torchrun's ask it."""
    if rank() == 0:
        os.environ[SEED] = str(secrets.randbelow(2**31))
    if under_torchrun():
        os.environ[SEED] = told_by_first(SEED, os.environ.get(SEED, ""))
    return int(os.environ[SEED])
