"""Whole commands on a trained model: sample, score, evaluate, export, and every mistake they answer."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src import load
from src.errors import UserError
from src.inference.options import with_named_runs
from src.process import exit_with
from tests.fabricated_run import VERSE, fabricate
from tests.runs.commands import environment

Answer = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answer:
    """Run an entry in this process and return what it printed: on stdout, or on stderr where it had to refuse."""

    def of(entry: str, *words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", [entry, *words])
        with pytest.raises(SystemExit) as ended:
            exit_with(importlib.import_module(f"src.{entry}").main)
        printed = capsys.readouterr()
        assert ended.value.code == code, printed.err
        return printed.err if code else printed.out

    return of


def test_sample_prints_the_prompt_and_what_python_gets_too(answer, folder):
    words = ("length=40", "temperature=0.8", "top_k=9", "seed=3")
    expected = load(folder).sample("hey, ho!)", length=40, temperature=0.8, top_k=9, seed=3)
    assert answer("sample", f"run={folder}", "prompt=hey, ho!)", *words).rstrip("\n") == str(expected).rstrip("\n")


def test_a_prompt_is_taken_to_the_letter(answer, tmp_path):
    prompt = ",'\"(){}=${a}\n 你好\\ [x] # true"
    folder = fabricate(tmp_path / "a run, (odd) =name", text=(prompt + "ab") * 30)
    assert answer("sample", f"run={folder}", f"prompt={prompt}", "length=5").startswith(prompt)


def test_json_says_what_the_samples_were_made_from_and_text_tells_them_apart_by_their_seeds(answer, folder):
    words = (f"run={folder}", "num_samples=3", "length=9", "seed=5")
    found = json.loads(answer("sample", *words, "format=json"))
    assert [sample["text"] for sample in found["samples"]] == load(folder).sample(length=9, num_samples=3, seed=5)
    assert [sample["seed"] for sample in found["samples"]] == [5, 6, 7]
    assert found["prompt"] + found["samples"][0]["continuation"] == found["samples"][0]["text"]
    printed = answer("sample", *words)
    assert "2 of 3, seed 6" in printed
    assert printed.rstrip("\n").endswith(found["samples"][2]["text"].rstrip("\n"))


def test_a_checkpoint_alone_and_another_implementation_write_the_same(answer, folder, tmp_path):
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((folder / "checkpoints" / "last.ckpt").read_bytes())
    words = ("length=30", "precision=64-true")
    expected = answer("sample", f"run={folder}", *words)
    assert answer("sample", f"checkpoint={alone}", *words) == expected
    assert answer("sample", f"run={folder}", *words, "model=stacked") == expected


def test_a_prompt_comes_from_standard_input_and_text_goes_out_as_it_is_written(folder, tmp_path):
    command = [sys.executable, "-m", "src.sample", f"run={folder}", "prompt=-", "length=1000000000"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes) as endless:
        assert endless.stdin and endless.stdout and endless.stderr  # noqa: PT018
        endless.stdin.write(b"The rain\nit ")
        endless.stdin.close()
        assert endless.stdout.read(500).startswith(b"The rain\nit ")  # of a text that would take a day
        endless.stdout.close()  # as `| head` does
        assert endless.wait(timeout=30) == 0
        assert endless.stderr.read() == b""


def test_a_conversation_reads_a_prompt_a_line_and_an_empty_line_goes_on(answer, folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("every day\n\nΩ\nrain\n".encode())))
    printed = answer("sample", f"run={folder}", "interactive=true", "length=20", "seed=4")
    trained = load(folder)
    whole = str(trained.sample("every day", length=40, seed=4))
    assert printed == f"{whole[:29]}\n{whole[29:]}\n{trained.sample('rain', length=20, seed=6)}\n"


def test_characters_that_the_unknown_symbol_stands_for_are_told_beside_the_text(answer, tmp_path, caplog):
    folder = fabricate(tmp_path / "run", **{"data.unknown": "map"})
    printed = answer("sample", f"run={folder}", "prompt=every Ω day, ΩЖ", "length=5")
    assert printed.startswith("every Ω day, ΩЖ")
    answer("score", f"run={folder}", "text=every day é")
    assert caplog.messages == [
        "prompt: 3 occurrences of 2 characters that the model does not know, read as its unknown symbol: "
        "'Ω' (U+03A9), 'Ж' (U+0416)",
        "text: 1 character that the model does not know, read as its unknown symbol: 'é' (U+00E9)",
    ]


def test_score_prints_a_line_a_character_and_the_whole(answer, folder):
    score = load(folder).score("it rains")
    lines = answer("score", f"run={folder}", "text=it rains").splitlines()
    assert lines[0].split() == ["given", "'i'"]
    assert [line.split()[0] for line in lines[1:8]] == [f"{bits:.3f}" for bits in score.bits]
    assert f"7 characters scored: {score.total:.2f} bits" in lines[-1]
    assert f"perplexity {score.perplexity:.3f}" in lines[-1]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfit\r\nrains", b"it rains\xe9", b"it\0rains"])
@pytest.mark.parametrize("door", ["text=-", "file=-", "text=", "prompt=-", "prompt="])
def test_standard_input_and_typed_texts_are_read_like_files(answer, folder, tmp_path, monkeypatch, content, door):
    (tmp_path / "a.txt").write_bytes(content)
    is_text, entry = content.startswith(b"\xef"), "sample" if "prompt" in door else "score"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    typed = door if door.endswith("-") else door + os.fsdecode(content)
    found = answer(entry, f"run={folder}", typed, "format=json", code=0 if is_text else 2)
    expected = answer("score", f"run={folder}", f"file={tmp_path / 'a.txt'}", "format=json", code=0 if is_text else 2)
    if not is_text:
        assert found.partition(": ")[2] == expected.partition(": ")[2] != ""
    elif entry == "sample":
        assert json.loads(found)["prompt"] == "it\nrains"
    else:
        assert json.loads(found)["text"] == json.loads(expected)["text"]
        assert "".join(symbol for symbol, _ in json.loads(found)["text"]) == "it\nrains"


def test_a_result_that_cannot_be_written_is_printed_all_the_same(answer, folder, capsys, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("src.inference.evaluate.write_json", refuse)
    monkeypatch.setattr("src.inference.export.write_result", refuse)
    monkeypatch.setattr(sys, "argv", ["evaluate", f"run={folder}"])
    with pytest.raises(SystemExit) as ended:
        exit_with(importlib.import_module("src.evaluate").main)
    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (
        0,
        f"note: {folder / 'evaluation_val.json'} was not written (Read-only file system)\n",
    )
    assert "ngram_5" in out
    refused = answer("export", f"run={folder}", "format=safetensors", code=2)
    assert refused.endswith("cannot be written (Read-only file system); name another file: output=...\n")


def test_no_number_is_minus_zero(answer, tmp_path):
    folder = fabricate(tmp_path / "run", text="a" * 400)
    for command in ("evaluate", "evaluate format=json", "score text=aaa", "score text=aaa format=json"):
        entry, *words = command.split()
        assert "-0.0" not in answer(entry, f"run={folder}", *words)


def test_several_files_are_ranked_the_least_surprising_first(answer, folder, tmp_path):
    texts = {"known.txt": VERSE[:200], "odd.txt": "yyyy((((hhhh" * 9, "b, c.txt": "rain hey day ho " * 9}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    trained = load(folder)
    ranked = sorted(texts, key=lambda name: trained.score(texts[name]).bits_per_character)
    globbed = answer("score", f"run={folder}", f"file={tmp_path}/*.txt").splitlines()[1:]
    named = answer("score", f"run={folder}", *(f"file={tmp_path / name}" for name in texts)).splitlines()[1:]
    for lines in (globbed, named):
        assert [line.partition(".txt")[0] + ".txt" for line in lines] == [str(tmp_path / name) for name in ranked]


def test_the_page_colours_every_character_and_runs_nothing(answer, tmp_path):
    folder = fabricate(tmp_path / "run", text="<b>&amp; it's\n" * 90)
    page = tmp_path / "page.html"
    answer("score", f"run={folder}", "text=<b>it's\n", "format=html", f"output={page}")
    html = page.read_text()
    spans = re.findall(r'<span class="(?:given|b\d+)" title="([^"]*)">([^<]*)</span>', html)
    assert "".join(text for _, text in spans) == "&lt;b&gt;it&#39;s↵\n"
    bits = load(folder).score("<b>it's\n").bits
    assert [title for title, _ in spans] == ["given", *(f"{cost:.2f} bits" for cost in bits)]
    assert "<script" not in html
    assert "http" not in html


def test_evaluate_prints_the_count_the_four_numbers_and_what_to_beat(answer, folder):
    printed = answer("evaluate", f"run={folder}", "split=val", "model=stacked")
    result = json.loads((folder / "evaluation_val.json").read_text())
    assert f"{result['characters']:,} characters" in printed
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line}
    assert float(rows["manual"][0]) == pytest.approx(result["cross_entropy"], abs=1e-6)
    assert rows["manual"] == rows["stacked"]
    assert abs(result["also"][0]["difference"]) < 1e-6
    assert float(rows["ngram_5"][1]) == pytest.approx(result["baselines"]["ngram_5"], abs=1e-6)


def test_a_moved_text_is_the_run_s_own_and_the_result_of_another_is_not_kept(answer, tmp_path, monkeypatch):
    folder, notes = fabricate(tmp_path / "run"), []
    moved = (folder / "text.txt").rename(tmp_path / "moved, it is.txt")
    assert "no such file" in answer("evaluate", f"run={folder}", code=2)
    own = json.loads(answer("evaluate", f"run={folder}", f"data.path={moved}", "format=json"))
    (tmp_path / "other.txt").write_text(VERSE * 2)
    monkeypatch.setattr("src.inference.evaluate.complain", notes.append)
    other = json.loads(answer("evaluate", f"run={folder}", f"data.path={tmp_path / 'other.txt'}", "format=json"))
    assert other["characters"] > own["characters"] > 0
    assert json.loads((folder / "evaluation_val.json").read_text()) == own
    assert f"so {folder / 'evaluation_val.json'} was not written" in notes[0]


# entry, words (RUN stands for a sound run), what the answer must name
MISTAKES = [
    ("sample", "run=RUN prompt=", "prompt is empty"),
    ("sample", "run=RUN length=many", "a whole number"),
    ("sample", "run=RUN --fofo", "no such flag"),
    ("sample", "run=RUN format=jsn", "did you mean json"),
    ("sample", "run=RUN temprature=1", "did you mean temperature"),
    ("sample", "run=RUN model=lstm", "cell, stacked, manual"),
    ("sample", "run=RUN data=text", "decided when the run was trained"),
    ("sample", "run=RUN interactive=true num_samples=2", "num_samples"),
    ("sample", "", "run=... (the folder of a run) or checkpoint=..."),
    ("sample", "run=RUN checkpoint=RUN", "one of them"),
    ("sample", "run=nowhere", "no such file"),
    ("score", "run=RUN", "text=... or file=..."),
    ("score", "run=RUN file=RUN/config.yaml file=RUN/text.txt output=RUN/config.yaml", "is a text that is read"),
    ("score", "run=RUN text=a file=b", "one of them"),
    ("score", "run=RUN text=", "text is empty"),
    ("score", "run=RUN text=e", "one character"),
    ("score", "run=RUN file= file=RUN/text.txt", "file is empty"),
    ("score", "run=RUN file=nowhere.txt", "file=nowhere.txt"),
    ("score", "run=RUN text=day output=no/where.html", "output=no/where.html"),
    ("score", "run=RUN file=RUN/../bad.txt", "the model reads texts as in training"),
    ("export", "run=RUN format=safetensors output=w.json", "output=w.safetensors"),
    ("export", "run=RUN output=RUN", "is not a file"),
    ("evaluate", "run=RUN/../damaged", "run.json is damaged"),
    ("evaluate", "run=RUN split=test", "train, val"),
    ("export", "run=RUN format=torch output=no/where.pt2", "output=no/where.pt2"),
]


@pytest.fixture(scope="module")
def beside(folder: Path) -> Path:
    """A run, beside one whose record is damaged and a text that is not UTF-8."""
    (fabricate(folder.parent / "damaged") / "run.json").write_text('{"data_prov')
    (folder.parent / "bad.txt").write_bytes(b"every\xff day")
    return folder


@pytest.mark.parametrize(("entry", "words", "named"), MISTAKES, ids=[f"{e} {w}" for e, w, _ in MISTAKES])
def test_a_mistake_is_answered_with_reason_and_remedy(answer, beside, tmp_path, monkeypatch, entry, words, named):
    monkeypatch.chdir(tmp_path)
    said = answer(entry, *(word.replace("RUN", str(beside)) for word in words.split()), code=2)
    assert named in said
    assert 1 <= len(said.splitlines()) <= 4
    assert "Traceback" not in said
    assert "append" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "errors"),
    [("train model.hiden_size=3 trainer.max_epochs=0", 2), ("sample run=RUN length=0 top_p=7 prompt=", 3)],
)
def test_what_shows_without_torch_is_answered_without_it_and_all_at_once(folder, tmp_path, command, errors):
    entry, *words = command.replace("RUN", str(folder)).split()
    program = (
        f"import sys; from src import {entry}\nfrom src.process import exit_with\n"
        f"try: exit_with({entry}.main)\nexcept SystemExit as ended: assert ended.code == 2\n"
        "assert not {'torch', 'lightning', 'matplotlib', 'tensorboard'} & set(sys.modules)"
    )
    asked = [sys.executable, "-c", program, *words]
    done = subprocess.run(asked, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == errors


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Runs of two names, one in a sweep and written last, in the working directory; one is without a checkpoint."""
    monkeypatch.chdir(tmp_path)
    names = ("runs/verse/2026-01-02_a", "runs/verse/2026-01-01_b", "runs/rhyme/x", "runs/sweeps/verse/0f3a")
    for age, name in enumerate(reversed(names)):  # the name does not say which is the newest
        os.utime(fabricate(tmp_path / name) / "run.json", (2e9 - age, 2e9 - age))
    (fabricate(tmp_path / "runs/verse/failed") / "checkpoints" / "best.ckpt").unlink()
    (tmp_path / "runs/verse/failed/checkpoints/last.ckpt").unlink()
    os.utime(tmp_path / "runs/verse/failed/run.json", (1e9, 1e9))
    return tmp_path


def test_last_is_the_newest_run_and_a_name_the_newest_of_that_name_and_the_path_is_printed(several, capsys):
    newest = Path("runs/sweeps/verse/0f3a")
    assert with_named_runs(["run=last", "length=9"]) == [f"run={newest}", "length=9"]
    assert capsys.readouterr().err == f"run=last is {newest}\n"
    assert with_named_runs(["resume=verse"]) == [f"resume={newest}"]
    assert with_named_runs(["init_from=rhyme"]) == ["init_from=runs/rhyme/x"]
    os.utime(several / "runs/rhyme/x/run.json", (2.1e9, 2.1e9))  # it was gone on with
    assert with_named_runs(["rerun=last"]) == ["rerun=runs/rhyme/x"]
    for path in ("runs/verse/failed", "nowhere", "prompt=last"):
        assert with_named_runs([f"run={path}"]) == [f"run={path}"]
    (several / "last").mkdir()  # a folder of that path comes first
    assert with_named_runs(["run=last", "prompt=last"]) == ["run=last", "prompt=last"]
    with pytest.raises(UserError, match="a sweep needs the run's folder: init_from=runs"):
        with_named_runs(["-m", "init_from=verse", "seed=0,1"])


@pytest.mark.parametrize(
    ("entry", "word"),
    [("sample", "length=5"), ("score", "text=day"), ("export", "format=torch"), ("explain", "explain.input=day")],
)
def test_every_command_on_a_run_takes_a_name(answer, several, entry, word):
    assert answer(entry, "run=rhyme", f"runs={several / 'runs'}", word)
    assert load("rhyme").path == Path("runs/rhyme/x/checkpoints/best.ckpt")
    assert "rhime: there is no such file or folder; did you mean rhyme?" in answer(entry, "run=rhime", word, code=2)


def test_a_folder_of_runs_is_evaluated_in_one_process_and_only_what_is_missing(answer, several, monkeypatch):
    answer("evaluate", "run=runs/sweeps/verse/0f3a", "split=train")  # which is not what split=null asks for
    one = json.loads(answer("evaluate", "run=runs/rhyme/x", "format=json"))
    found = json.loads(answer("evaluate", "run=runs", "format=json"))
    assert [Path(result.pop("run")).name for result in found] == ["x", "0f3a", "2026-01-01_b", "2026-01-02_a"]
    assert found == [one] * 4
    before = {file: file.stat().st_mtime_ns for file in several.rglob("evaluation_val.json")}
    assert len(before) == 4
    os.utime(several / "runs/rhyme/x/checkpoints/best.ckpt", (2.2e9, 2.2e9))  # trained on since
    foreign = several / "runs/sweeps/verse/0f3a/evaluation_val.json"  # of another text, kept by earlier code
    foreign.write_text(json.dumps({**one, "text": {"changed": True}}))
    lines = answer("evaluate", "run=runs").splitlines()
    assert [line.endswith("(evaluated before)") for line in lines[1:]] == [False, False, True, True]
    assert f"{one['cross_entropy']:.6f}" in lines[1]
    changed = {file for file, time in before.items() if file.stat().st_mtime_ns != time}
    assert changed == {several / "runs/rhyme/x/evaluation_val.json", foreign}
    assert json.loads(foreign.read_text()) == one
    (several / "runs/rhyme/x/text.txt").unlink()
    lines = answer("evaluate", "run=runs/rhyme", "split=train", code=1).splitlines()
    assert lines == [f"runs/rhyme/x: {several / 'runs/rhyme/x/text.txt'}: there is no such file"] or len(lines) == 1


def test_a_page_is_written_into_the_run_and_what_a_page_cannot_do_is_refused(answer, tmp_path):
    run = fabricate(tmp_path / "run", loud=1.5)
    words = (f"run={run}", "format=html")
    printed = answer("export", *words, "example=hey, ho!")
    assert printed.startswith("rounding the weights to 16 bits: ")
    assert printed.splitlines()[1] == str(run / "export" / "page.html")
    assert '"example": "hey, ho!"' in (run / "export/page.html").read_text(encoding="utf-8")
    assert answer("export", *words, "example=€", code=2).startswith("example has 1 character that the vocabulary of")
    told = "example=hey stands in a page only: use format=html, or leave it out\n"
    assert answer("export", f"run={run}", "example=hey", code=2) == told
