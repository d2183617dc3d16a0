"""What only the texts, the machine and other runs can say about a sweep, before its first job.

torch is imported only where a job asks for more than a CPU, or starts from weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from src.config.start import heavy_imports
from src.config.sweeper import Engine
from src.data.corpus import Corpus, open_corpus
from src.data.layout import plan
from src.mistakes import Mistake
from src.training.length import check_validations, windows_an_epoch
from src.training.wanted import check_monitor, check_prompt, check_size

NOT_THE_TEXT = ("seq_len", "batch_size", "offset", "reset", "evaluation_streams")


def mistakes_in_texts(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what is wrong with the texts of jobs: missing, too short for the windows, without the samples' prompt."""
    texts: dict[str, Corpus | None] = {}
    looked: set[str] = set()
    wrong: dict[str, None] = {}
    for config in configs:
        data = config["data"]
        groups = ("data", "model", "trainer", "checkpoint", "early_stopping", "scheduler")
        asked = [config["callbacks"]["text_samples"], *(config[group] for group in groups)]
        if (whole := json.dumps(asked, sort_keys=True)) in looked:
            continue
        looked.add(whole)
        text = {key: value for key, value in data.items() if key not in NOT_THE_TEXT}
        name = json.dumps(text, sort_keys=True)
        try:
            if name not in texts:
                texts[name] = None
                texts[name] = open_corpus(**text)
            corpus = texts[name]
            if corpus is not None:
                if config["init_from"] is None:  # else the vocabulary is the older run's, with the text's behind it
                    check_prompt(config["callbacks"]["text_samples"], corpus.vocabulary)
                check_monitor(config, corpus.splits)
                windows = plan(corpus.splits["train"], data["seq_len"], data["batch_size"], data["offset"], 0)
                check_validations(config["trainer"], windows_an_epoch(config["trainer"], windows.count))
                check_size(config["model"], len(corpus.vocabulary))
        except Mistake as mistake:
            wrong |= dict.fromkeys(mistake.messages)
    return list(wrong)


def mistakes_in_machine(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what jobs ask for that this machine lacks; each way of training once."""
    trainers = [config["trainer"] for config in configs if config["trainer"]["accelerator"] != "cpu"]
    if not trainers:
        return []  # a CPU is what every machine has
    with heavy_imports():
        from src.training.machine import check_machine
    return _told(check_machine, {json.dumps(trainer, sort_keys=True): trainer for trainer in trainers}.values())


def mistakes_in_weights(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return which weights jobs cannot start from: none there, or of other sizes; each model once."""
    starts = [config for config in configs if config["init_from"] is not None]
    if not starts:
        return []
    with heavy_imports():
        from src.training.starting import source_of
    return _told(source_of, {json.dumps([one["init_from"], one["model"]]): one for one in starts}.values())


def _told(check: Callable[[Any], object], configs: Iterable[Any]) -> list[str]:
    """Return what a check says of any of the configurations, each text once."""
    wrong: dict[str, None] = {}
    for config in configs:
        try:
            check(config)
        except Mistake as mistake:
            wrong |= dict.fromkeys(mistake.messages)
    return list(wrong)


def mistakes_here(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return everything above that is wrong with jobs that run here, where their texts lie."""
    return [*mistakes_in_texts(configs), *mistakes_in_machine(configs), *mistakes_in_weights(configs)]


def side_by_side(engine: Engine, jobs: int) -> int:
    """Return how many jobs share a machine: what `trainer.threads=auto` divides its cores by."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if engine.name == "joblib":
        wanted = int(engine.settings.get("n_jobs") or 1)
        return max(1, min(jobs, wanted if wanted > 0 else cores + 1 + wanted))
    if engine.name == "submitit_local":
        return max(1, jobs)  # it starts all of them at once
    if engine.name == "ray":
        return cores  # a job is given one core unless it asks for more
    return 1
