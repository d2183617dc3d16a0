"""Run folders as training leaves them, made of given numbers, so that a report's figures can be known beforehand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from src.config.schema import Config, key_table, set_value, to_plain
from src.metrics import four_metrics
from src.reports.runs import find_runs
from src.reports.table import Metric, Report, Row, Table, build

NATS = Metric("val/cross_entropy")
BASELINES = {"uniform": 6.0, "unigram": 4.8, "ngram_5": 2.4}
DEFAULTS = {
    "data.name": "tiny_shakespeare", "model.hidden_size": 128, "model.nonlinearity": "tanh", "optimizer.name": "adam",
    "optimizer.lr": 0.002, "scheduler.name": "cosine", "trainer.threads": "1",
}  # fmt: skip


def configuration(**settings: Any) -> str:
    """A whole configuration as it is stored; `lr=0.1` stands for the one key that ends so, `optimizer.lr`."""
    config = Config()
    table = key_table()
    named = {}
    for name, value in settings.items():
        ends = [name] if name in table else [key for key in (f"{name}.name", *table) if key.endswith(f".{name}")]
        named[f"{name}.name" if f"{name}.name" in table else ends[0]] = value
    for key, value in {**DEFAULTS, **named}.items():
        set_value(config, key, value)
    config.model._target_ = f"src.models.{config.model.name}.Model"
    if config.model.name in ("lstm", "gru"):
        config.model.nonlinearity = None
    return yaml.dump(to_plain(config), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)


def fabricate(
    folder: Path,
    value: float | None = 1.5,
    *,
    seed: int | None = 0,
    status: str = "done",
    best: float | None = None,
    curve: list[tuple[int, float]] | None = None,
    evaluations: dict[str, float] | None = None,
    baselines: dict[str, float] | None = None,
    config: str | None = None,
    record: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write one run folder: `value` is its final val/cross_entropy in nats, `evaluations` those of each split."""
    folder.mkdir(parents=True)
    settings = {"model": "manual", "data": "tiny_shakespeare", **settings}
    config = configuration(seed=seed, **settings) if config is None else config
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    points = [(0, 4.2), (100, 2.5), (200, value or 2.0)] if curve is None else curve
    content: dict[str, Any] = {
        "format": 1, "status": status, "model": settings["model"], "data": settings["data"], "experiment": None,
        "seed": seed, "started": "2026-01-02T03:04:05+00:00", "seconds": 60.0, "error": None,
        "process": {"pid": 1, "boot": "elsewhere", "host": "another-machine"},
        "parameters": 26_000, "characters": 3_000_000, "steps": points[-1][0] if points else 0, "epochs": 3,
        "baselines": BASELINES if baselines is None else baselines,
        "metrics": {
            "final": {} if value is None else four("val", value) | {"train/loss": value + 0.1},
            "best": {"monitor": "val/cross_entropy", "value": value if best is None else best, "step": 200},
        },
        **(record or {}),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    at = [{"step": step, "epoch": 0, "characters": 64 * step, "seconds": step / 10} for step, _ in points]
    lines = [json.dumps(where | four("val", nats)) for where, (_, nats) in zip(at, points, strict=True)]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    for split, nats in (evaluations or {}).items():
        stored = {name.partition("/")[2]: number for name, number in four(split, nats).items()}
        stored |= {"split": split, "characters": 1000, "baselines": BASELINES, "checkpoint": "best"}
        (folder / f"evaluation_{split}.json").write_text(json.dumps(stored), encoding="utf-8")
    return folder


def report_of(root: Path, metric: Metric = NATS, **options: Any) -> Report:
    return build(find_runs([str(root)]), metric, **options)


def runs_of(*tables: Table) -> list[Row]:
    """The rows that are not baselines."""
    return [row for table in tables for row in table.rows if not row.name]


def four(prefix: str, nats: float) -> dict[str, float]:
    """The four numbers that are logged together."""
    return four_metrics(prefix, nats, 0.5) if not math.isnan(nats) else dict.fromkeys([f"{prefix}/cross_entropy"], nats)
