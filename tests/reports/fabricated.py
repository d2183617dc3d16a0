"""Run folders as training leaves them, made of given numbers, so that a report's figures can be known beforehand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

# A whole configuration as it is stored, resolved: the length matters for the time that 1,000 of them take.
CONFIG = """\
name: null
seed: {seed}
runs: {runs}
init_from: null
loss:
  over_time: mean
checkpoint:
  enabled: true
  every_n_steps: null
  every_n_minutes: 5.0
  monitor: val/cross_entropy
  mode: min
early_stopping:
  enabled: false
  patience: 5
  min_delta: 0.0
sweep:
  dry_run: false
model:
  num_layers: 1
  hidden_size: {hidden_size}
{nonlinearity}  dropout: 0.0
  init: torch
  input_scale: 1.0
  interlayer_scale: null
  single_bias: false
  readout: linear
  name: {model}
  _target_: src.models.{model}.Model
optimizer:
  name: adam
  lr: {lr}
  betas:
  - 0.9
  - 0.999
  eps: 1.0e-08
  weight_decay: 0.0
scheduler:
  name: cosine
  warmup_steps: 0
  total_steps: null
  final_fraction: 0.0
trainer:
  accelerator: cpu
  devices: 1
  num_nodes: 1
  strategy: auto
  precision: 32-true
  threads: {threads}
  max_epochs: 3
  max_steps: -1
  max_time: null
  min_epochs: null
  gradient_clip_val: 1.0
  gradient_clip_algorithm: norm
  accumulate_grad_batches: 1
  val_check_interval: 1.0
  check_val_every_n_epoch: 1
  limit_train_batches: 1.0
  limit_val_batches: 1.0
  overfit_batches: 0.0
  log_every_n_steps: {log_every_n_steps}
  deterministic: false
  detect_anomaly: false
  enable_progress_bar: true
callbacks:
  predicted_string:
    enabled: false
  gradient_flow:
    enabled: true
    every_n_steps: 500
  text_samples:
    enabled: true
    temperatures:
    - 0.5
    - 1.0
logger:
  name: tensorboard
data:
  name: {data}
  root: {runs}/data
  seq_len: 64
  batch_size: 64
  evaluation_streams: 20
"""

BASELINES = {"uniform": 6.0, "unigram": 4.8, "ngram_5": 2.4}


def fabricate(
    folder: Path,
    value: float | None = 1.5,
    *,
    seed: int | None = 0,
    model: str = "manual",
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
    filled = {
        "hidden_size": 128,
        "lr": 0.002,
        "threads": 1,
        "log_every_n_steps": 50,
        "data": "tiny_shakespeare",
        **settings,
    }
    nonlinearity = "" if model in ("lstm", "gru") else f"  nonlinearity: {settings.get('nonlinearity', 'tanh')}\n"
    filled["nonlinearity"] = nonlinearity
    if config is None:
        config = CONFIG.format(seed="null" if seed is None else seed, model=model, runs=folder.parent, **filled)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    points = [(0, 4.2), (100, 2.5), (200, value or 2.0)] if curve is None else curve
    final = {} if value is None else four("val", value) | {"train/loss": value + 0.1}
    lowest = value if best is None else best
    content: dict[str, Any] = {
        "format": 1,
        "status": status,
        "name": f"{filled['data']}_{model}",
        "experiment": None,
        "model": model,
        "data": filled["data"],
        "key": "0123456789ab",
        "seed": seed,
        "command": "python -m src.train",
        "overrides": [],
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:05+00:00" if status == "done" else None,
        "seconds": 60.0,
        "process": {"pid": 1, "boot": "elsewhere", "host": "another-machine"},
        "git": {"commit": None, "dirty": None},
        "parameters": 26_000,
        "characters": 3_000_000,
        "steps": points[-1][0] if points else 0,
        "epochs": 3,
        "baselines": BASELINES if baselines is None else baselines,
        "metrics": {
            "final": final,
            "best": {"monitor": "val/cross_entropy", "mode": "min", "value": lowest, "step": 200, "epoch": 2},
        },
        "error": None,
        **(record or {}),
    }
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    lines = [json.dumps({"step": step, "epoch": 0, "seconds": 1.0, **four("val", nats)}) for step, nats in points]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    for split, nats in (evaluations or {}).items():
        stored = {name.partition("/")[2]: number for name, number in four("", nats).items()}
        stored |= {"split": split, "characters": 1000, "baselines": BASELINES, "model": model, "checkpoint": "best"}
        (folder / f"evaluation_{split}.json").write_text(json.dumps(stored), encoding="utf-8")
    return folder


def four(prefix: str, nats: float) -> dict[str, float]:
    """The four numbers that are logged together."""
    return {
        f"{prefix}/cross_entropy": nats,
        f"{prefix}/bits_per_character": nats / math.log(2),
        f"{prefix}/perplexity": math.exp(nats) if nats < 700 else math.inf,
        f"{prefix}/accuracy": 0.5,
    }
