"""`python -m src.report` as a user meets it: what it prints, writes and refuses."""

import csv
import re
import subprocess
import sys

import pytest
from fabricated import fabricate

from src.process import exit_with
from src.report import main
from tests.runs.commands import environment


@pytest.fixture
def call(sweep, monkeypatch, capsys):
    """The command in this process, in the folder of the sweep: exit code, stdout and stderr."""
    monkeypatch.chdir(sweep)

    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["report", *arguments])
        with pytest.raises(SystemExit) as ended:
            exit_with(main)
        return ended.value.code, *capsys.readouterr()

    return called


@pytest.fixture
def sweep(tmp_path):
    for model, shift in (("manual", 0.0), ("cell", 0.1)):
        for seed in range(3):
            value = 1.5 + shift + seed / 100
            folder = tmp_path / "runs" / f"{model}{seed}"
            fabricate(folder, value, seed=seed, model=model, evaluations={"test": value + 1})
    fabricate(tmp_path / "runs" / "bad", None, seed=3, status="failed",
              record={"error": {"type": "ValueError", "message": "no such layer"}})  # fmt: skip
    return tmp_path


def test_the_table_the_comparison_and_the_files_in_one_call(call, sweep):
    files = ["--csv", "t.csv", "--markdown", "t.md", "--html", "t.html", "--latex", "t.tex", "--figures", "figures"]
    code, out, err = call("runs", "--compare", "model", *files)
    assert (code, err) == (0, "")
    assert "7 runs: 6 counted, 1 failed" in out
    assert "ValueError: no such layer" in out
    assert "more than noise: manual is better" in out
    first = next(csv.DictReader((sweep / "t.csv").read_text(encoding="utf-8").splitlines()))
    assert (first["model"], first["n"], first["seeds"]) == ("manual", "3", "0 1 2")
    assert float(first["mean"]) == pytest.approx(1.51)
    assert re.search(r"\| 1 +\| manual +\| 1.5100 \| 0.0100 \|", (sweep / "t.md").read_text(encoding="utf-8"))
    assert (sweep / "t.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in sweep.iterdir()) == ["figures", "runs", "t.csv", "t.html", "t.md", "t.tex"]
    names = ("curves_by_characters", "curves_by_seconds", "curves_by_steps", "final_values")
    kinds = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert sorted(one.name for one in (sweep / "figures").iterdir()) == sorted(f"{n}.{k}" for n in names for k in kinds)
    for kind, start in kinds.items():
        assert (sweep / "figures" / f"final_values.{kind}").read_bytes().startswith(start)


def test_evaluations_of_a_split_are_reported_and_nothing_that_was_read_is_changed(call, sweep):
    before = {path: path.read_bytes() for path in sweep.rglob("*.*")}
    code, out, _ = call("runs", "--split", "test", "--metric", "cross_entropy", "--csv", "-")
    assert code == 0
    rows = [line for line in csv.DictReader(out.splitlines()) if line["kind"] == "runs"]
    assert [(row["model"], round(float(row["mean"]), 9)) for row in rows] == [("manual", 2.51), ("cell", 2.61)]
    assert {path: path.read_bytes() for path in sweep.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("arguments", "code", "imported"),
    [
        (["--help"], 0, set()),
        (["runs", "--compare", "model"], 0, {"numpy", "pandas", "scipy"}),
        (["runs", "--html", "t.html", "--csv", "t.csv"], 0, {"jinja2", "matplotlib", "numpy", "pandas", "scipy"}),
    ],
)
def test_nothing_is_imported_that_is_not_used(sweep, arguments, code, imported):
    program = (
        f"import sys\nfrom src.report import main\nsys.argv[1:] = {arguments!r}\ntry: code = main() or 0\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = 'torch hydra omegaconf lightning tensorboard matplotlib numpy pandas scipy jinja2'.split()\n"
        "print(code, sorted({*heavy} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=sweep, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == f"{code} {sorted(imported)}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: PATH (python -m src.report --help)"),
        (["rnus"], "rnus cannot be read: No such file or directory"),
        (["runs", "empty"], "no run below empty"),
        (["runs", "--metric", "val/cross_entrpy"], "no run has a metric val/cross_entrpy; did you mean val/cross_en"),
        (["runs", "--compare", "modle"], "--compare modle: no setting of these runs has that name; did you mean mo"),
        (["runs", "--csv", "nowhere/t.csv"], "--csv nowhere/t.csv: there is no folder nowhere"),
        (["runs", "--html", "empty"], "empty cannot be written: Is a directory"),
        (["runs", "--split", "test", "--at", "best"], "--at: not allowed with argument --split"),
    ],
)
def test_an_error_is_answered_in_one_line_with_exit_code_2(call, sweep, arguments, told):
    (sweep / "empty").mkdir()
    before = sorted(sweep.rglob("*"))
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1
    assert sorted(sweep.rglob("*")) == before


def test_a_terminal_without_chinese_and_names_that_would_break_lines(call, sweep):
    fabricate(sweep / "runs" / "书", 1.7, seed=0, data="红楼梦 | *x*")
    fabricate(sweep / "runs" / "raised", None, status="failed", seed=9,
              record={"error": {"type": "Error", "message": "red \x1b[31m\nline"}})  # fmt: skip
    command = [sys.executable, "-m", "src.report", "runs"]
    env = environment(PYTHONIOENCODING="ascii")
    done = subprocess.run(command, cwd=sweep, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    assert "\\u7ea2" in done.stdout
    assert "\x1b" not in done.stdout
    _, out, _ = call("runs", "--markdown", "-")
    assert "红楼梦 \\| \\*x\\*" in out


def test_only_unfinished_runs_is_an_answer_not_an_error(call, sweep):
    fabricate(sweep / "young" / "a", None, status="running")
    code, out, _ = call("young", "--html", "t.html")
    assert code == 0
    assert "no finished run has val/cross_entropy yet" in out
    assert "not counted (1)" in out
