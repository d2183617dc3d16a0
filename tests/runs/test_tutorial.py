"""The tutorial's script, to the digit: strings and losses, its misprinted input and "hello" itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from tests.runs.commands import ROOT, only_run, run, scalars

EXPECTED = ROOT.parent / "shared" / "tutorial" / "expected.json"
LINE = re.compile(r"Predicted string:(\w{5}),Epoch \[(\d+)/15\] loss=(\d+\.\d{4})$")


def lines_of(printed: str) -> list[list[tuple[str, str]]]:
    """What was printed as (string, loss) an epoch, fifteen of them a run."""
    found = [match.groups() for line in printed.splitlines() if (match := LINE.match(line))]
    assert [int(epoch) for _, epoch, _ in found] == list(range(1, 16)) * (len(found) // 15)
    pairs = [(string, loss) for string, _, loss in found]
    return [pairs[start : start + 15] for start in range(0, len(pairs), 15)]


def written_as_in_the_tutorial(seed: int, word: str) -> list[tuple[str, str]]:
    """The page's loop, its typing slips mended: an RNNCell, one step after another, the losses added up."""
    torch.manual_seed(seed)
    cell = torch.nn.RNNCell(4, 4)
    optimizer = torch.optim.Adam(cell.parameters(), lr=0.1)
    x = torch.eye(4)[["ehlo".index(letter) for letter in word]].unsqueeze(1)
    targets = torch.tensor([["ehlo".index(letter)] for letter in "ohlol"])
    printed = []
    for _ in range(15):
        optimizer.zero_grad()
        h_t, loss, string = torch.zeros(1, 4), torch.zeros(()), ""
        for x_t, target in zip(x, targets, strict=True):
            h_t = cell(x_t, h_t)
            loss = loss + torch.nn.functional.cross_entropy(h_t, target)
            string += "ehlo"[int(h_t.argmax())]
        loss.backward()
        optimizer.step()
        printed.append((string, f"{loss.item():.4f}"))
    return printed


@pytest.mark.slow
@pytest.mark.parametrize(("words", "word"), [(("experiment=tutorial",), "hlllo"), ((), "hello")])
def test_every_seed_prints_what_the_page_s_script_prints(words: tuple[str, ...], word: str, tmp_path: Path) -> None:
    printed = lines_of(run("-m", *words, "seed=0,1,2,7,123,99991", cwd=tmp_path))
    assert printed == [written_as_in_the_tutorial(seed, word) for seed in (0, 1, 2, 7, 123, 99991)]


@pytest.mark.skipif(not EXPECTED.exists(), reason="the tutorial's printed lines are not beside this checkout")
def test_the_loop_above_prints_the_lines_on_record() -> None:
    for known in json.loads(EXPECTED.read_text())["runs"]:
        word = {"as_printed": "hlllo", "hello": "hello"}[known["input"]]
        record = list(zip(known["predicted"], [f"{loss:.4f}" for loss in known["loss"]], strict=True))
        assert written_as_in_the_tutorial(known["seed"], word) == record


@pytest.mark.slow
def test_the_three_models_print_one_another_s_lines(tmp_path: Path) -> None:
    words = ("-m", "model=cell,stacked,manual")
    cell, stacked, manual = lines_of(run(*words, "seed=0", cwd=tmp_path))
    assert nearly_equal(stacked, cell)
    assert manual[0] == cell[0]  # before the first step nothing differs

    cell, stacked, manual = lines_of(run(*words, "model.single_bias=true", "seed=0", cwd=tmp_path))
    assert nearly_equal(cell, stacked)
    assert nearly_equal(stacked, manual)

    (tmp_path / "my.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    small = ("data.seq_len=16", "data.batch_size=4", "model.hidden_size=8", "trainer.max_epochs=1", "callbacks=none")
    printed = run(*words, "data=text", "data.path=my.txt", *small, "runs=on_a_text", cwd=tmp_path)
    first, second, third = re.findall(r"best val (\d\.\d{4})", printed)
    assert first == second == third

    in_double = ("model.single_bias=true", "trainer.precision=64-true", "seed=3")
    cell, stacked, manual = lines_of(run(*words, *in_double, cwd=tmp_path))
    assert cell == stacked == manual


def nearly_equal(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(text == same and abs(float(a) - float(b)) < 1.01e-4 for (text, a), (same, b) in pairs)


@pytest.mark.slow
def test_the_main_job_leaves_a_run_that_tensorboard_reads_back(tmp_path: Path) -> None:
    (printed,) = lines_of(run(cwd=tmp_path))
    folder = only_run(tmp_path / "runs")
    points = scalars(folder)["train/loss"]
    assert [step for step, _ in points] == list(range(15))
    assert [f"{loss:.4f}" for _, loss in points] == [loss for _, loss in printed]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    assert (record["steps"], record["characters"], record["parameters"]) == (15, 75, 40)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 15
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 200_000
    log = (folder / "train.log").read_text()
    assert log.count("done in") == 1
    assert "Tip" not in log
    assert "WARNING" not in log
