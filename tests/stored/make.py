"""How the files beside this one were made, once, by commit 3282607: PYTHONPATH=. python tests/stored/make.py

The tests compare later code with them, so they are not made again.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import yaml

from src import load
from tests.runs.commands import run, start

HERE = Path(__file__).resolve().parent
FOLDER = Path("/tmp/stored")  # in the checkpoints this stays; in text files it becomes ROOT
QUIET = "callbacks=none", "trainer.threads=1"
TEXT = "data=text", f"data.path={FOLDER}/text.txt", "data.seq_len=16", "data.batch_size=4", "optimizer.lr=0.02"
# All that a checkpoint restores: dropout, random offsets, a carried state, a schedule, and callbacks with a state
LONG = (
    *TEXT, *QUIET, "model=manual", "model.num_layers=2", "model.hidden_size=8", "model.dropout=0.1",
    "data.offset=random", "data.reset=never", "scheduler=cosine", "scheduler.total_steps=400", "trainer.max_epochs=3",
    "trainer.val_check_interval=0.4", "trainer.log_every_n_steps=10", "checkpoint.every_n_steps=5",
    "early_stopping.enabled=true", "early_stopping.patience=50", "logger=csv", "callbacks.layout.enabled=true",
    "callbacks.hparams.enabled=true", "callbacks.recurrent_scalars.enabled=true",
)  # fmt: skip
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
CONFIGS = "experiment=tutorial", "data=tiny_shakespeare model=lstm optimizer=sgd optimizer.lr=0.002 scheduler=cosine"
KINDS = "cell", "stacked", "lstm", "gru"
MODELS = "runs/finished", "exports/weights.safetensors", *(f"models/{kind}.ckpt" for kind in KINDS)
REPORT = "runs/sweeps", "--metric", "train/cross_entropy", "--compare", "model"
EXTENDED = "trainer.max_epochs=4"
SCORED = "the cat sat on a mat"
TEXTS = (".yaml", ".json", ".log")
ROOT, HOST = "@ROOT@", "@HOST@"


def command(module: str, *arguments: str) -> str:
    """Run a command in FOLDER, and return what it prints."""
    return run(*arguments, module=f"src.{module}", cwd=FOLDER)


def main() -> None:
    """Make everything in FOLDER, then copy it here."""
    (FOLDER / "conf/search").mkdir(parents=True)
    for name in ("text.txt", "conf/search/stored.yaml"):
        shutil.copy(HERE / name, FOLDER / name)
    printed = {
        "train": command("train", *QUIET, "runs=elsewhere"),
    }
    command("train", *LONG)
    (finished,) = FOLDER.glob("runs/text_manual/*")
    finished.rename(FOLDER / "runs/finished")
    make_killed_run()
    command("train", *SWEEP)
    command("search", *SEARCH)
    (FOLDER / "models").mkdir()
    for kind in KINDS:
        command("train", *TEXT, *QUIET, f"model={kind}", "model.hidden_size=4", "trainer.max_epochs=1", f"runs={kind}")
        (last,) = FOLDER.glob(f"{kind}/*/*/checkpoints/last.ckpt")
        last.rename(FOLDER / f"models/{kind}.ckpt")
    for form in ("safetensors", "torch"):
        command("export", "run=runs/finished", f"format={form}")
    (FOLDER / "runs/finished/export").rename(FOLDER / "exports")
    for part in ("runs", "models", "exports"):
        shutil.copytree(FOLDER / part, HERE / part, ignore=shutil.ignore_patterns(".*", "events.*", "plots", "*.png"))
        without_machine(HERE / part)
    # What follows may change FOLDER
    printed |= {"report": command("report", "runs"), "report_sweep": command("report", *REPORT)}
    expected = {
        "evaluate": json.loads(command("evaluate", "run=runs/finished", "format=json")),
        "models": {name: used(FOLDER / name) for name in MODELS},
        "keys": {line: folders(command("train", "-m", *line.split(), "sweep.dry_run=true")) for line in KEYS},
        "configs": {line: yaml.safe_load(command("train", *line.split(), "--cfg", "job")) for line in CONFIGS},
    }
    command("train", "resume=runs/finished", EXTENDED)
    expected["extended"] = json.loads((FOLDER / "runs/finished/run.json").read_text())["metrics"]
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1).replace(str(FOLDER), ROOT) + "\n")
    for name, text in printed.items():
        (HERE / f"printed/{name}.txt").write_text(text)


def make_killed_run() -> None:
    """Train runs/killed like runs/finished, and kill it in the middle of an epoch, after its last checkpoint."""
    with start(*LONG, cwd=FOLDER) as process:
        while sum(len(file.read_text().splitlines()) for file in FOLDER.glob("runs/text_manual/*/metrics.jsonl")) < 4:
            time.sleep(0.01)
        process.kill()
    (run_folder,) = FOLDER.glob("runs/text_manual/*")
    run_folder.rename(FOLDER / "runs/killed")


def without_machine(folder: Path) -> None:
    """Replace the names of this machine in the text files; checkpoints record the lengths of theirs."""
    for file in (path for path in folder.rglob("*") if path.suffix in TEXTS):
        text = file.read_text().replace(str(FOLDER), ROOT).replace(f'"{socket.gethostname()}"', f'"{HOST}"')
        file.write_text(text.replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "another-start"))


def folders(printed: str) -> list[str]:
    """Return the folders of a sweep's jobs from the plan that sweep.dry_run=true prints."""
    return [line.split()[-1] for line in printed.splitlines() if line.startswith("  ")]


def used(path: Path) -> dict[str, object]:
    """Return what a model samples and how it scores a text."""
    model = load(path)
    return {"sample": model.sample("the ", length=60, temperature=0.0), "bits": model.score(SCORED).bits_per_character}


if __name__ == "__main__":
    main()
