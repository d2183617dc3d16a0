"""How the files beside this one were made, once, by commit 3282607: PYTHONPATH=. python tests/stored/make.py

The tests hold later code to them, so they are not made again: what this prints today would only agree with itself.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

from src import load
from tests.stored.commands import Commands

HERE = Path(__file__).resolve().parent
FOLDER = Path("/tmp/stored")  # in the checkpoints this stays; in text files it becomes ROOT
QUIET = "callbacks=none", "trainer.threads=1"
TEXT = "data=text", f"data.path={FOLDER}/text.txt", "data.seq_len=16", "data.batch_size=4", "optimizer.lr=0.02"
# All that a checkpoint has to bring back: dropout, random offsets, a carried state, a schedule, and callbacks with
# something to remember.
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
    "data=war_and_peace,enwik8 optimizer=adamw,rmsprop model=gru trainer.accumulate_grad_batches=2 "
    "early_stopping.enabled=true debug=fast",
    "model=manual model.interlayer_scale=1.5 model.init=orthogonal model.single_bias=true loss.over_time=mean "
    "name=named callbacks=none trainer.max_epochs=3,4 checkpoint.every_n_steps=7 scheduler=plateau",
)
CONFIGS = "experiment=tutorial", "data=tiny_shakespeare model=lstm optimizer=sgd scheduler=cosine"
KINDS = "cell", "stacked", "lstm", "gru"
MODELS = "runs/finished", "exports/weights.safetensors", *(f"models/{kind}.ckpt" for kind in KINDS)
REPORT = "runs/sweeps", "--metric", "train/cross_entropy", "--compare", "model"
EXTENDED = "trainer.max_epochs=4"
SCORED = "the cat sat on a mat"
TEXTS = (".yaml", ".json", ".log")
ROOT, HOST = "@ROOT@", "@HOST@"


def main() -> None:
    """Make everything in FOLDER, then put it here."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "conf/search").mkdir(parents=True)
    for name in ("text.txt", "conf/search/stored.yaml"):
        shutil.copy(HERE / name, FOLDER / name)
    commands = Commands(FOLDER)
    printed = {
        "train": commands.run("src.train", "callbacks=none", "trainer.threads=1", "runs=elsewhere"),
        "explain": commands.run("src.explain"),
        "explain_3_layers": commands.run("src.explain", "explain.num_layers=3"),
    }
    commands.run("src.train", *LONG)
    (finished,) = FOLDER.glob("runs/text_manual/*")
    finished.rename(FOLDER / "runs/finished")
    killed().rename(FOLDER / "runs/killed")
    commands.run("src.train", *SWEEP)
    commands.run("src.search", *SEARCH)
    (FOLDER / "models").mkdir()
    for kind in KINDS:
        small = f"model={kind}", "model.hidden_size=4", "trainer.max_epochs=1", f"runs={kind}"
        commands.run("src.train", *TEXT, *QUIET, *small)
        (last,) = FOLDER.glob(f"{kind}/*/*/checkpoints/last.ckpt")
        last.rename(FOLDER / f"models/{kind}.ckpt")
    for form in ("safetensors", "torch"):
        commands.run("src.export", "run=runs/finished", f"format={form}")
    (FOLDER / "runs/finished/export").rename(FOLDER / "exports")
    shutil.copytree(FOLDER, keep := FOLDER.with_name("stored_kept"), dirs_exist_ok=True)
    # What follows may leave something in the folder, which is not kept
    printed["report"] = commands.run("src.report", "runs")
    printed["report_sweep"] = commands.run("src.report", *REPORT)
    plans = {words: commands.run("src.train", "-m", *words.split(), "sweep.dry_run=true") for words in KEYS}
    composed = {words: commands.run("src.train", *words.split(), "--cfg", "job") for words in CONFIGS}
    expected = {
        "evaluate": json.loads(commands.run("src.evaluate", "run=runs/finished", "format=json")),
        "models": {name: used(FOLDER / name) for name in MODELS},
        "keys": {words: folders(plan) for words, plan in plans.items()},
        "configs": {words: yaml.safe_load(config) for words, config in composed.items()},
    }
    commands.run("src.train", "resume=runs/finished", EXTENDED)
    expected["extended"] = json.loads((FOLDER / "runs/finished/run.json").read_text())["metrics"]
    commands.close()
    for part in ("runs", "models", "exports"):
        portable(keep / part)
        shutil.rmtree(HERE / part, ignore_errors=True)
        shutil.copytree(keep / part, HERE / part, ignore=shutil.ignore_patterns(".locks", "plots", "export"))
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1).replace(str(FOLDER), ROOT) + "\n")
    for name, text in printed.items():
        (HERE / "printed").mkdir(exist_ok=True)
        (HERE / f"printed/{name}.txt").write_text(text)


def killed() -> Path:
    """A run that was killed in the middle of an epoch, behind its last checkpoint."""
    while True:
        shutil.rmtree(FOLDER / "runs/text_manual", ignore_errors=True)
        process = subprocess.Popen([sys.executable, "-m", "src.train", *LONG], cwd=FOLDER, stdout=subprocess.DEVNULL)
        lines: list[str] = []
        while process.poll() is None and len(lines) < 4:
            time.sleep(0.01)
            lines = [line for file in FOLDER.glob("runs/text_manual/*/metrics.jsonl") for line in file.open()]
        process.send_signal(signal.SIGKILL)
        process.wait()
        (run,) = FOLDER.glob("runs/text_manual/*")
        step = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        if step % 5 == 0 and json.loads((run / "run.json").read_text())["status"] == "running":
            print(f"killed; its last checkpoint is of step {step}, its last line: {lines[-1]}")
            return run


def portable(folder: Path) -> None:
    """Take out what belongs to this machine, and what no test needs."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        of_a_job = {"sweeps", "search"} & set(file.parts)
        if file.name.startswith(("events.", ".")) or (of_a_job and file.suffix in (".ckpt", ".png")):
            file.unlink()
        elif file.suffix in TEXTS:  # the others have lengths that a checkpoint knows
            text = file.read_text().replace(str(FOLDER), ROOT).replace(f'"{socket.gethostname()}"', f'"{HOST}"')
            file.write_text(text.replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "another-start"))


def folders(printed: str) -> list[str]:
    """The folders of a sweep's jobs, in the plan that sweep.dry_run=true prints."""
    return [line.split()[-1] for line in printed.splitlines() if line.startswith("  ")]


def used(path: Path) -> dict[str, object]:
    """What a model writes and how it scores."""
    model = load(path)
    return {"sample": model.sample("the ", length=60, temperature=0.0), "bits": model.score(SCORED).bits_per_character}


if __name__ == "__main__":
    main()
