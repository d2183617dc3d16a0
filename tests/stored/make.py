"""What the files beside this one were made from, by commit 3282607; the program is in the history of this file.

The tests compare later code with them, so they are not made again.
"""

from __future__ import annotations

from pathlib import Path

from src import load

FOLDER = Path("/tmp/stored")  # in the checkpoints this stays; in text files it becomes ROOT
QUIET = "callbacks=none", "trainer.threads=1"
SWEEP = "-m", *QUIET, "logger=none", "trainer.max_epochs=3", "name=stored", "model=cell,lstm,gru"
SEARCH = "--config-dir", "conf", "search=stored"
KEYS = (
    "model=cell,stacked,manual,lstm,gru seed=0,7",
    "data=tiny_shakespeare,names,pydoc model=manual optimizer=sgd optimizer.lr=0.5 optimizer.momentum=0.9",
    "experiment=tutorial,tiny_shakespeare",
    "data=text data.path=/text.txt model=manual model.num_layers=2,3 model.dropout=0.1 scheduler=cosine "
    "scheduler.warmup_steps=5 trainer.precision=bf16-mixed",
    "data=war_and_peace,enwik8 optimizer=adamw,rmsprop optimizer.lr=0.002 model=gru trainer.accumulate_grad_batches=2 "
    "early_stopping.enabled=true debug=fast",
    "model=manual model.interlayer_scale=1.5 model.init=orthogonal model.single_bias=true loss.over_time=mean "
    "name=named callbacks=none trainer.max_epochs=3,4 checkpoint.every_n_steps=7 scheduler=plateau",
)
KINDS = "cell", "stacked", "lstm", "gru"
MODELS = "runs/finished", "exports/weights.safetensors", *(f"models/{kind}.ckpt" for kind in KINDS)
REPORT = "runs/sweeps", "--metric", "train/cross_entropy", "--compare", "model"
EXTENDED = "trainer.max_epochs=4"
SCORED = "the cat sat on a mat"
TEXTS = (".yaml", ".json", ".log")
ROOT, HOST = "@ROOT@", "@HOST@"


def folders(printed: str) -> list[str]:
    """Return the folders of a sweep's jobs from the plan that sweep.dry_run=true prints."""
    return [line.split()[-1] for line in printed.splitlines() if line.startswith("  ")]


def used(path: Path) -> dict[str, object]:
    """Return what a model samples and how it scores a text."""
    model = load(path)
    return {"sample": model.sample("the ", length=60, temperature=0.0), "bits": model.score(SCORED).bits_per_character}
