"""The tutorial's script, to the digit: strings and losses, its misprinted input and "hello" itself."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path

import pytest

from tests.runs.commands import ROOT, only_run, run, scalars

SCRIPT = ROOT / "docs" / "tutorial_script.py"
TUTORIAL, TUTORIAL_ZH = ((ROOT / "docs" / name).read_text("utf-8") for name in ("tutorial.md", "tutorial.zh.md"))
EXPECTED = ROOT.parent / "shared" / "tutorial" / "expected.json"
LINE = re.compile(r"Predicted string:(\w{5}),Epoch \[(\d+)/15\] loss=(\d+\.\d{4})$")


def lines_of(printed: str) -> list[list[tuple[str, str]]]:
    """What was printed as (string, loss) an epoch, fifteen of them a run."""
    found = [match.groups() for line in printed.splitlines() if (match := LINE.match(line))]
    assert [int(epoch) for _, epoch, _ in found] == list(range(1, 16)) * (len(found) // 15)
    pairs = [(string, loss) for string, _, loss in found]
    return [pairs[start : start + 15] for start in range(0, len(pairs), 15)]


def script_lines(seed: int, word: str) -> list[tuple[str, str]]:
    """What docs/tutorial_script.py prints; for another input than its own, with that x_data."""
    source = SCRIPT.read_text(encoding="utf-8")
    changed = re.sub(r"x_data = \[.*?\]", f"x_data = {['ehlo'.index(letter) for letter in word]}", source)
    assert (changed == source) == (word == "hlllo")
    out, arguments = io.StringIO(), sys.argv
    sys.argv = ["tutorial_script.py", str(seed)]
    try:
        with contextlib.redirect_stdout(out):
            exec(changed, {})  # noqa: S102  # our own file
    finally:
        sys.argv = arguments
    (found,) = lines_of(out.getvalue())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("words", "word"), [(("experiment=tutorial",), "hlllo"), ((), "hello")])
def test_a_seed_prints_what_the_page_s_script_prints(words: tuple[str, ...], word: str, tmp_path: Path) -> None:
    printed = lines_of(run("-m", *words, "seed=0,1,2,99991", cwd=tmp_path))
    assert printed == [script_lines(seed, word) for seed in (0, 1, 2, 99991)]


@pytest.mark.skipif(not EXPECTED.exists(), reason="the tutorial's printed lines are not beside this checkout")
def test_the_script_prints_the_lines_on_record() -> None:
    for known in json.loads(EXPECTED.read_text())["runs"]:
        word = {"as_printed": "hlllo", "hello": "hello"}[known["input"]]
        record = list(zip(known["predicted"], [f"{loss:.4f}" for loss in known["loss"]], strict=True))
        assert script_lines(known["seed"], word) == record


@pytest.mark.skipif(not EXPECTED.exists(), reason="the tutorial's page is not beside this checkout")
def test_the_script_is_the_page_s_with_its_typing_errors_mended() -> None:
    (page,) = EXPECTED.parent.glob("*.txt")
    printed = page.read_text(encoding="utf-8").partition("训练如下模型:")[2]
    for wrong, right in (("hidde n=", "hidden ="), ("loss+ =", "loss +="), ("loss.item())", "loss.item()))")):
        assert printed.count(wrong) == 1
        printed = printed.replace(wrong, right)
    body = SCRIPT.read_text(encoding="utf-8").partition('"""\n\n')[2]
    lines = [line for line in body.splitlines() if "# added" not in line]
    code, theirs = (
        "".join(re.sub(r"#.*", "", line) for line in lines),
        re.sub(r"# ?\S*[\u4e00-\u9fff]\S*", "", printed),
    )
    theirs = theirs.replace("# loss.backward(retain_graph=True)", "")
    assert re.sub(r"\s", "", code) == re.sub(r"\s", "", theirs)


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The rows of the table below a heading, as cells."""
    table = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [re.split(r" \| ", line.strip("| ")) for line in table.splitlines() if line.startswith("| ")][1:]


def test_the_table_has_every_line_of_the_script_in_its_order() -> None:
    body = SCRIPT.read_text(encoding="utf-8").partition('"""\n\n')[2]
    code = [re.sub(r" *# .*", "", line).strip() for line in body.splitlines() if "# added" not in line]
    for page, heading in ((TUTORIAL, "The script, line by line"), (TUTORIAL_ZH, "逐行对照脚本")):
        rows = rows_of(page, heading)
        assert [line for row in rows for line in re.findall(r"`([^`]+)`", row[0])] == [line for line in code if line]


@pytest.mark.skipif(not EXPECTED.exists(), reason="the tutorial's page is not beside this checkout")
def test_the_tables_follow_the_order_of_the_page() -> None:
    """The Chinese page quotes the tutorial's words in 「」; the English one has the same rows (tests/test_docs.py)."""
    (page,) = EXPECTED.parent.glob("*.txt")
    text = re.sub(r"[\s$]", "", page.read_text(encoding="utf-8"))
    at, rows = 0, [row for heading in ("前向计算的公式", "沿时间的反向传播") for row in rows_of(TUTORIAL_ZH, heading)]
    for row in rows[:-1]:  # the last one is not on the page
        quotes = [
            part for quote in re.findall(r"「(.*?)」", row[0]) for part in re.sub(r"[\s$]", "", quote).split("……")
        ]
        assert quotes, row
        for quote in quotes:
            assert quote in text[at:], f"{quote} is not on the page, or earlier than the row before it"
            at += text[at:].index(quote)


@pytest.mark.slow
def test_the_three_models_print_one_another_s_lines(tmp_path: Path) -> None:
    words = ("-m", "model=cell,stacked,manual", "logger=none")
    printed = lines_of(run(*words, "model.single_bias=false,true", "seed=0", cwd=tmp_path))
    cell, cell_single, stacked, stacked_single, manual, manual_single = printed
    assert nearly_equal(stacked, cell)
    assert manual[0] == cell[0]  # before the first step nothing differs
    assert nearly_equal(cell_single, stacked_single)
    assert nearly_equal(stacked_single, manual_single)

    (tmp_path / "my.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    small = ("data.seq_len=16", "data.batch_size=4", "model.hidden_size=8", "trainer.max_epochs=1", "callbacks=none")
    said = run(*words, "data=text", "data.path=my.txt", *small, "runs=on_a_text", cwd=tmp_path)
    first, second, third = re.findall(r"best val (\d\.\d{4})", said)
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
