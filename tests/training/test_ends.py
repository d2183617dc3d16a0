"""How a run ends: with a validation of its last weights, which an extended run no longer has."""

from __future__ import annotations

import json
import math
import os
import random
import re
import sys
import termios
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from src import train
from src.config.compose import compose, stored_config, to_config
from src.errors import UserError
from src.training.machine import peer_is_gone
from src.training.metrics_log import ProgressBar
from tests.runs.commands import PLAIN, last_of_each, only_run
from tests.runs.test_resume import read_all, same_end

WORDS = "data=text data.path=text.txt data.seq_len=7 data.batch_size=8 data.offset=random data.reset=never "
WORDS += "model=stacked model.num_layers=2 model.hidden_size=4 model.dropout=0.3 callbacks=none trainer.threads=1 "
WORDS += " ".join(one for one in PLAIN if "offset" not in one)
PLATEAU = "scheduler=plateau scheduler.patience=0 trainer.log_every_n_steps=1"
CLOCK = ("lengths", "seconds", "train/characters_per_second")


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog; " * 16)
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *words])
    train.main()


def last_line(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def without_clock(state: Any) -> Any:
    """The state in a checkpoint as plain data, without its configuration and what the clock says."""
    if isinstance(state, dict):
        return {k: without_clock(v) for k, v in state.items() if k not in (*CLOCK, "config", "total_steps")}
    return [without_clock(v) for v in state] if isinstance(state, list | tuple) else str(getattr(state, "data", state))


@pytest.mark.parametrize(
    ("both", "first", "more"),
    [
        ("trainer.val_check_interval=0.6", "trainer.max_epochs=2", "trainer.max_epochs=3"),
        pytest.param("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3", "trainer.max_epochs=4",
                     marks=pytest.mark.soak),
        ("trainer.max_epochs=2 trainer.val_check_interval=4", "trainer.max_steps=8", "trainer.max_steps=-1"),
        ("trainer.max_epochs=2 data.split=[1.0] checkpoint.monitor=train/accuracy", "trainer.max_steps=13",
         "trainer.max_steps=-1"),
        ("trainer.max_epochs=2", "trainer.max_time=00:00:00", "trainer.max_time=null"),
        ("trainer.max_steps=13", "trainer.max_epochs=1", "trainer.max_epochs=2"),
        ("trainer.max_epochs=1 trainer.val_check_interval=1", "trainer.max_time=00:00:00", "trainer.max_time=null"),
        ("trainer.max_epochs=2 trainer.val_check_interval=3 early_stopping.min_delta=99 early_stopping.patience=1",
         "early_stopping.enabled=true", "early_stopping.enabled=false"),
    ],
)  # fmt: skip
def test_a_run_ends_with_a_line_of_its_last_weights_and_extended_it_is_one_that_did_not_end_there(
    monkeypatch: pytest.MonkeyPatch, both: str, first: str, more: str
) -> None:
    for end, runs in ((more, "whole"), (first, "parts")):
        words = WORDS.replace("scheduler=none", PLATEAU).split()
        run(monkeypatch, *words, *both.split(), end, f"runs={runs}")
    whole, parts = only_run(Path("whole")), only_run(Path("parts"))
    record = json.loads((parts / "run.json").read_text())
    assert (record["status"], last_line(parts)["step"]) == ("done", record["steps"])
    assert record["steps"] < last_line(whole)["step"]
    assert "split" in both or record["metrics"]["final"]["val/accuracy"] == last_line(parts)["val/accuracy"]
    run(monkeypatch, f"resume={parts}", more)
    same_end(whole, parts, files=False)
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(end / "checkpoints" / name, weights_only=True) for end in (whole, parts))
        assert without_clock(one) == without_clock(other)


def test_what_follows_from_other_keys_is_set_in_new_runs_and_stays_in_stored_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for metric, mode in (("val/accuracy", "max"), ("val/perplexity", "min")):
        assert to_config(compose([f"checkpoint.monitor={metric}"])).checkpoint.mode == mode
    words = ["optimizer.weight_decay=0.1", "trainer.accumulate_grad_batches=2", "debug=overfit"]
    new, plain = (to_config(compose(["data=names", *more])) for more in (words, []))
    keys = [(one.optimizer.decay, one.trainer.average_last_group, one.data.offset) for one in (new, plain)]
    assert keys == [("matrices", True, "fixed"), (None, None, "random")]
    run(monkeypatch, *WORDS.split(), "trainer.max_steps=1")
    file = only_run(Path()) / "config.yaml"
    file.write_text(file.read_text().replace("mode: min", "mode: max"))  # as of a run that was made before
    assert stored_config(file.parent)[0].checkpoint.mode == "max"
    changed = stored_config(file.parent, ["checkpoint.monitor=val/perplexity", "optimizer.weight_decay=0.1"])[0]
    assert (changed.checkpoint.mode, changed.optimizer.decay) == ("min", "matrices")
    runs = [one.runs for one in (to_config(compose(["runs=~/x"])), stored_config(file.parent, ["runs=~/x"])[0])]
    assert runs == 2 * [str(Path.home() / "x")]


NO_VAL = r"has no val split.*checkpoint\.monitor=train/"
SELDOM = "trainer.check_val_every_n_epoch=10 trainer.max_epochs=3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"scheduler=plateau {SELDOM}", "no validation comes in"),
        (f"early_stopping.enabled=true trainer.max_steps=40 {SELDOM}", "no validation comes in"),
        (
            f"scheduler=plateau trainer.accumulate_grad_batches=8 {SELDOM} trainer.max_epochs=9",
            "no validation comes in",
        ),
        ("scheduler=plateau data.split=[1.0]", NO_VAL),
        ("early_stopping.enabled=true data.split=[1.0]", NO_VAL),
        ("checkpoint.monitor=val/accuracy data.split=[1.0]", NO_VAL),
        ("checkpoint.mode=min checkpoint.monitor=val/accuracy", "the best val/accuracy is the maximum"),
        ("loss.over_time=sum", "trainer.gradient_clip_val=null"),
    ],
)
def test_words_that_contradict_one_another_are_refused(
    monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(monkeypatch, *last_of_each([*WORDS.split(), *words.split()]))
    assert not Path("runs").exists()


def test_a_run_that_ends_above_the_uniform_guess_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = WORDS.replace("optimizer=adam", "optimizer=sgd").split()
    run(monkeypatch, *words, "trainer.max_steps=9", "optimizer.lr=100")
    assert json.loads((only_run(Path()) / "run.json").read_text())["worse_than_uniform"]
    printed = capsys.readouterr()
    warning = r"the loss at the end, [\d.]+, is worse than a uniform guess, [\d.]+: the run has diverged"
    assert re.search(warning, printed.err)
    assert "done in" not in printed.out
    assert "src.sample" not in printed.out


@pytest.mark.parametrize(
    ("words", "side", "rises"),
    [("30 optimizer.lr=0.01", "above", 0), ("400 optimizer.lr=.02", "below", 0), ("400 optimizer.lr=.001", "below", 1)],
)
def test_a_run_says_how_it_stands_to_the_counted_5_gram_and_what_to_type_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, side: str, rises: int
) -> None:
    if side == "below":  # a text without anything to count; the other one is counted exactly
        draw, often = random.Random(0).choices, [8, 4, 2, 1]
        Path("text.txt").write_text("".join(draw("abcd", often, k=2700) + draw("abcd", often[:: 1 - 2 * rises], k=300)))
    plain = WORDS.replace("model.dropout=0.3", "model.dropout=0")
    run(monkeypatch, *plain.split(), *f"trainer.max_steps={words}".split(), "trainer.check_val_every_n_epoch=2")
    lines, record = capsys.readouterr().out.splitlines(), json.loads((only_run(Path()) / "run.json").read_text())
    best, five_gram = record["metrics"]["best"]["value"], record["baselines"]["ngram_5"] * math.log(2)
    end = record["metrics"]["final"]["val/cross_entropy"]
    (verdict,) = [line for line in lines if line.startswith("best val")]
    assert f": {abs(best - five_gram):.2f} {side} the counted 5-gram ({five_gram:.3f})" in verdict
    assert ("trainer.max_steps=60" in verdict) == (best > five_gram) == (side == "above")
    assert (f"; it was {end:.4f} at the end: fewer" in verdict) == (end > best + 0.02) == bool(rises)
    sample = "sample: python -m src.sample run=last length=500 temperature=0.8"
    assert (lines[-2] == sample) != rises  # a rising one ends above the uniform guess
    assert sum("nats" in line for line in lines) == 2, "the unit is said at the start and in the verdict"


def seen(written: str) -> list[str]:
    """What a terminal shows of a text in the end: a carriage return goes back to the begin of the line."""
    shown = []
    for line in written.replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        shown.append("".join(cells).rstrip())
    return shown


@pytest.mark.parametrize("width", [80, pytest.param(120, marks=pytest.mark.soak)])
def test_on_a_terminal_one_bar_shows_the_whole_run_and_leaves_every_line_clean(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(ProgressBar, "INTERVAL", 0.0)
    words = [*WORDS.split(), "optimizer.lr=0.002", "trainer.val_check_interval=0.5", "checkpoint.every_n_steps=5"]
    for more in (["trainer.max_epochs=2", "trainer.max_steps=20"], [f"resume={Path('runs')}", "trainer.max_steps=24"]):
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, width))
        if more[0].startswith("resume"):
            words, more[0] = [], f"resume={only_run(Path('runs'))}"
        written: list[bytes] = []
        reader = threading.Thread(target=read_all, args=(ours, written))
        reader.start()
        with open(theirs, "w") as stream, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            run(patched, *words, *more)
        reader.join()
        os.close(ours)
        text = b"".join(written).decode()
        lines = [line for line in seen(text) if line]
        assert len(lines) >= 4
        for line in lines:
            begins = r"(stacked on|train:|baselines|epoch \d/2  step \d+  train|best val|sample:|done in|going on)"
            assert re.match(begins, line), line
            assert "%" not in line
        drawn = [part for part in re.split(r"[\r\n]", text) if "% |" in part]
        assert all(len(part) <= width for part in drawn)
        assert re.match(r"epoch [12]/2 +\d+% \|.*\| +[\d:?]+ left, loss \d\.\d{3}, [\d,]+ characters/s", drawn[-1])
        if not words:
            percents = [int(one[1]) for part in drawn if (one := re.search(r"(\d+)% ", part))]
            assert percents[0] >= 80, "a resumed run begins where it stopped"


def test_only_the_end_of_a_peer_stops_a_run() -> None:
    gone = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5"
    assert peer_is_gone(RuntimeError(gone))
    assert not peer_is_gone(RuntimeError("NCCL error: out of memory"))
    assert not peer_is_gone(RuntimeError("my gloo is a string"))
