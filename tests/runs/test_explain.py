"""python -m src.explain: backpropagation through time as numbers that agree with autograd's, and fit a terminal."""

from __future__ import annotations

import dataclasses
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from src.config.schema import ExplainConfig, ExplainOptions, ModelConfig
from src.errors import UserError
from src.explain import errors_in_explain
from src.inference.load import load
from src.models.language_model import build_model
from src.worked_example import lesson as story
from src.worked_example.bptt_example import MOST_STEPS, compute, differences, loss, reach, updated
from src.worked_example.document import Table, as_markdown, as_text, columns, vector
from src.worked_example.lesson import Lesson, lesson_of, render
from tests.runs.commands import ROOT, refused_here, run

STORED = ROOT / "tests/stored/models"


def asked(path: Path | None = None, **more) -> ExplainConfig:
    defaults = {"input": None, "target": None, "hidden_size": 3, "num_layers": 1, "nonlinearity": "tanh", "seed": 0}
    return ExplainConfig(
        run=path and str(path), explain=ExplainOptions(**defaults | {"level": "short", "format": "text"} | more)
    )


def lesson(path: Path | None = None, **more) -> Lesson:
    return lesson_of(asked(path, **more))


def explained(**more):
    problem = lesson(**more).problem
    return problem, compute(problem)


def printed(path: Path | None = None, **more) -> str:
    config = asked(path, **more)
    return render(lesson_of(config), config.explain)


def held(problem, ours) -> int:
    """Hold every number to autograd's and the fast path's; return how many."""
    found = differences(problem, ours)
    assert max(d.from_autograd for d in found) < 1e-12
    assert max(d.from_fast_path for d in found if d.from_fast_path is not None) < 1e-12
    assert min(d.largest for d in found) > 0  # nothing agrees by being zero
    return len(found)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_every_delta_and_gradient_is_autograds_and_the_fast_paths(num_layers, nonlinearity):
    assert held(*explained(num_layers=num_layers, nonlinearity=nonlinearity)) == 5 * num_layers + 2


@pytest.mark.parametrize("name", ["cell", "stacked"])
def test_a_trained_network_is_explained_on_any_text_from_the_state_that_its_beginning_leaves(name):
    text = "the cat sat on the mat. then the dog sat"
    found = lesson(STORED / f"{name}.ckpt", input=text)
    p = found.problem
    assert len(p.x) == MOST_STEPS
    assert min(h.abs().min() for h in p.h_0) > 0
    assert held(p, compute(p)) > 5
    logits, _ = p.model(torch.cat([p.earlier, p.x.argmax(1)])[:, None])  # the whole text from a zero state
    assert torch.allclose(compute(p).o, logits[-MOST_STEPS:, 0], atol=1e-12)
    page = printed(STORED / f"{name}.ckpt", input=text)
    assert f"The {len(text) - 1 - MOST_STEPS} before them are read first" in " ".join(page.split())


def test_an_item_of_a_list_is_explained_from_its_start_to_its_end_and_a_task_is_refused(monkeypatch):
    named = load(STORED / "cell.ckpt")
    for data, read in (({"items": True}, "↵the␣d"), ({"name": "copy"}, "")):
        config = dataclasses.replace(named.config, data=dataclasses.replace(named.config.data, **data))
        monkeypatch.setattr(story, "load", lambda *_, c=config, **__: dataclasses.replace(named, config=c))
        if read:
            assert lesson(Path(), input="a dog\nthe d").input == read
            assert lesson(Path(), input="the d").target == f"{read[1:]}↵"
    with pytest.raises(UserError, match="explain knows texts, and data=copy is a task"):
        lesson(Path(), input="the d")


def test_a_run_without_a_readout_is_explained_on_its_own_pair_and_a_large_one_is_cut_as_said(tmp_path):
    run("trainer.max_epochs=1", "callbacks=none", "logger=none", "name=pair", cwd=tmp_path)
    (folder,) = (tmp_path / "runs/pair").iterdir()
    page = printed(folder)
    assert page.startswith('Backpropagation through time: "hello" -> "ohlol"')
    assert "o_t = h_t" in page
    assert held(lesson(folder).problem, compute(lesson(folder).problem)) == 5
    sizes = ("data=text", "data.path=x", "model.hidden_size=20", "model.num_layers=2", "data.batch_size=1", "name=wide")
    (tmp_path / "x").write_text("The quick brown fox jumps over the lazy dog. " * 9)
    run(*sizes, "trainer.max_epochs=1", "callbacks=none", "logger=none", cwd=tmp_path)
    (folder,) = (tmp_path / "runs/wide").iterdir()
    page = " ".join(printed(folder, input="lazy fox").split())
    assert re.search(r"Of 20 units per layer those with .* shown, in this order: (\d+, ){2}\d+ of layer 1; ", page)
    assert re.search(r"Of \d\d symbols 8 are shown", page)
    assert "(the other 17)" in page
    wrong = refused_here(f"run={folder}", "explain.num_layers=1", cwd=tmp_path, module="src.explain")
    assert wrong == ["explain.num_layers=1: a trained network has its own; leave one of the two out"]
    wrong = refused_here(f"run={STORED / 'lstm.ckpt'}", cwd=tmp_path, module="src.explain")
    assert "its equations are those of lstm; explain knows the networks of cell, stacked, manual" in wrong[0]


def arithmetic(text: str, digits: int) -> float:
    """Evaluate `(a)(b) + (c)(d) - e * (f - g) ...` as printed."""
    text = re.sub(r"\(the other \d+\)", "", text).strip().replace(")(", ")*(")
    assert re.fullmatch(r"[-+*(). \d]+", text), text
    return round(eval(text), digits)  # noqa: S307  # digits and operators only, as held above


@pytest.mark.parametrize("seed", range(4))
def test_the_entries_that_are_worked_out_are_right_as_they_are_printed(seed):
    page = printed(num_layers=1 + seed % 3, seed=seed, nonlinearity=("tanh", "relu")[seed % 2])
    page = re.sub(r"\n {12}", " ", page)  # a long sum goes on below
    lines = [line for line in page.splitlines() if re.match(r"    (z_\d|where|delta_\d|above =|later =|dU)", line)]
    checked = 0
    for line in lines:
        parts = re.split(r" = ", line.split(",   ")[0])
        if re.fullmatch(r"-?\d\.\d+", parts[-1]) and re.search(r"\d [-+*] ?\(?-?\d|\)\(", parts[-2]):
            digits = len(parts[-1].partition(".")[2])
            assert arithmetic(parts[-2], digits) == pytest.approx(float(parts[-1]), abs=1.1 * 10**-digits), line
            checked += 1
    assert checked >= 5


def test_the_update_lowers_the_loss_and_the_reach_is_that_of_the_last_loss_alone():
    p, n = explained(num_layers=2, seed=3)
    rate, after = updated(p, n.gradients)
    assert rate == 0.1
    assert loss(after) < loss(p)
    assert torch.equal(after.W[1], p.W[1] - 0.1 * n.gradients["dW^2"])
    z = [torch.zeros(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]  # added to z, for its gradient
    h, total = [torch.zeros(3, dtype=torch.float64)] * 2, None
    for t in range(5):
        below = p.x[t]
        for l in range(2):  # noqa: E741
            h[l] = below = torch.tanh(p.U[l] @ below + p.W[l] @ h[l] + p.b[l] + z[l][t])
        total = -(p.V @ below + p.c).log_softmax(0)[p.targets[t]]
    for (radius, norms), W, gradient in zip(reach(p), p.W, torch.autograd.grad(total, z), strict=True):
        assert norms == pytest.approx(gradient.norm(dim=1).flip(0).tolist())
        assert radius == pytest.approx(max(abs(torch.linalg.eigvals(W))).item())


@pytest.mark.parametrize("name", ["delta", "above", "gradients"])
def test_a_wrong_number_is_seen_in_the_differences(name):
    problem, ours = explained(num_layers=2)
    wrong = ours.gradients["dU^2"] if name == "gradients" else getattr(ours, name)[1]
    wrong[0, 0] += 1e-6
    assert max(d.from_autograd for d in differences(problem, ours)) > 1e-7


def test_the_weights_are_those_that_training_starts_from():
    config = ModelConfig(_target_="src.models.manual.ManualRNN", hidden_size=3, num_layers=2)
    torch.manual_seed(7)
    trained = build_model(config, vocab_size=4).double().state_dict()
    before = torch.random.get_rng_state()
    problem = lesson(num_layers=2, seed=7).problem
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(weight, trained[name]) for name, weight in problem.model.state_dict().items())
    assert torch.equal(problem.U[1], trained["recurrence.layers.1.weight"][:, :3])
    assert torch.equal(problem.c, trained["readout.bias"])


@pytest.mark.slow
@pytest.mark.parametrize("words", [("hello", "ohlol"), ("it's a", "t's a,")], ids=str)
def test_the_command_on_the_page_trains_from_the_weights_on_the_page(words, tmp_path):
    chosen = [f"explain.input={words[0]}", f"explain.target={words[1]}", "explain.num_layers=2", "explain.seed=4"]
    text = explain(*chosen, cwd=tmp_path)
    command = text.partition("python -m src.train ")[2].partition("\n\n")[0].replace("\\\n", " ")
    assert ("data." in command) == (words[0] != "hello")
    stand_still = ("trainer.max_epochs=1", "optimizer.lr=1e-30", "callbacks=none", "logger=none")
    run(*shlex.split(command), *stand_still, cwd=tmp_path)
    (file,) = tmp_path.glob("runs/**/last.ckpt")
    weights = torch.load(file, weights_only=True)["state_dict"]
    assert len(weights) == 6
    for weight in weights.values():
        for row in weight if weight.dim() == 2 and weight.shape[1] < 6 else ():  # V, in the order of the vocabulary
            assert vector(row) in text
    first = next(weight for name, weight in weights.items() if name.endswith("layers.0.weight"))
    assert all(vector(row[:-3]) in text and vector(row[-3:]) in text for row in first)  # U, W


def test_chinese_blanks_and_backticks_keep_their_columns():
    table = Table(["t", "reads", "o"], [["1", "中", "0.1"], ["2", "␣", "0.2"], ["3", "`", "0.3"]])
    assert [line.index("0.") for line in as_text([table]).splitlines()[2:]] == [12, 13, 13]  # 中 is two columns wide
    rows = as_markdown([table]).splitlines()[2:]
    assert rows == ["| `1` | `中` | `0.1` |", "| `2` | `␣` | `0.2` |", "| `3` | `` ` `` | `0.3` |"]
    assert max(columns(line) for line in as_text(["中文 " * 60]).splitlines()) <= 100


def explain(*overrides: str, cwd: Path) -> str:
    """Run the command, and hold the largest difference that it prints to below 1e-12."""
    text = run(*overrides, cwd=cwd, module="src.explain")
    (found,) = re.findall(r"The largest difference of all is (\S+): below 1e-12\.", text)
    assert float(found) < 1e-12
    return text


def test_hello_is_explained_within_a_hundred_columns(tmp_path):
    text = explain(cwd=tmp_path)
    assert max(map(len, text.splitlines())) <= 100
    for equation in (
        "z_t = U x_t + W h_{t-1} + b",
        "z_1 = U x_1 + W h_0 + b = 0.310 + 0.000 + 0.386 = 0.696",
        "t   x_t   U x_t                  W h_{t-1} ",
        "delta_t = f'(z_t) * (above + later)",
        "dU = sum_t delta_t (x_t)^T",
    ):
        assert equation in text
    losses = [float(loss) for loss in re.findall(r"^ \d   [ehlo] .* (\d\.\d{4})$", text, re.MULTILINE)]
    (total,) = re.findall(r"L = sum_t L_t = .* = (\S+)", text)
    assert len(losses) == 5
    assert abs(sum(losses) - float(total)) < 3e-4
    up, down, *three = [float(found) for found in re.findall(r"^ .*  (-?\d\.\d{8})$", text, re.MULTILINE)]
    assert (up - down) / 2e-5 == pytest.approx(three[0], abs=2e-3)
    assert three == pytest.approx([three[1]] * 3, abs=1e-7)
    assert list(tmp_path.iterdir()) == []


def test_three_layers_show_both_paths_of_the_pages_formula_and_name_its_errors():
    text = printed(num_layers=3, level="full")
    assert max(map(len, text.splitlines())) <= 100

    def row(beginning: str) -> torch.Tensor:
        (found,) = [line for line in text.splitlines() if line.startswith(f" {beginning}")]
        return torch.tensor([float(number) for number in re.findall(r"-?\d\.\d{4}", found)])

    by_time, by_layer = row("by W, along time"), row("by U, down from layer 3")
    both, section_3, as_printed = row("delta_1^2, the sum"), row("section 3: layer 2, t = 1"), row("as printed, with")
    assert by_time.abs().min() > 0
    assert by_layer.abs().min() > 0
    assert torch.allclose(by_time + by_layer, both, atol=2e-4)
    assert torch.equal(both, section_3)
    assert (as_printed - both).abs().max() > 0.01
    assert len(re.findall(r"^Error in the page: ", text, re.MULTILINE)) == 3
    assert "Error in the page: the path" in printed(num_layers=3)


def test_the_figure_of_the_two_paths_is_the_one_in_the_docs_and_its_parts_add_up(tmp_path):
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"src\.explain (explain\.num_layers.*format=svg) output=docs/(\S+)", page)
    assert f"]({command[1]})" in page
    assert run(*command[0].split(), "output=x.svg", cwd=tmp_path, module="src.explain") == "written: x.svg\n"
    made, kept = ((folder / name).read_text() for folder, name in ((tmp_path, "x.svg"), (ROOT / "docs", command[1])))
    assert re.sub(r"-?\d\.\d{3,}", "", made) == re.sub(r"-?\d\.\d{3,}", "", kept)
    later, above, both = (
        torch.tensor([float(number) for number in re.findall(r"-?\d\.\d{4}", text)])
        for text in ("".join(one.itertext()) for one in ET.fromstring(made).iter() if one.tag.endswith("text"))
        if re.match("later =|above =|dL/dh", text)
    )
    assert torch.allclose(later + above, both, atol=2e-4)


def test_all_errors_are_reported_at_once():
    wrong = ExplainOptions("ha", "ohlol", 80, 7, "tanh", -1, "long", "txt")
    assert errors_in_explain(ExplainConfig("runs/none", "x.ckpt", explain=wrong)) == [
        "which model? give run=... (the folder of a run) or checkpoint=... (a file), one of them",
        "explain.hidden_size=80: expected 1 to 8",
        "explain.num_layers=7: expected 1 to 6",
        f"explain.seed=-1: expected at least 0 and at most {2**64 - 1}",
        "explain.level=long: expected one of short, full",
        "explain.format=txt: expected one of text, markdown, html, svg; did you mean text?",
    ]
    assert errors_in_explain(asked(input="ha", target="ohlol")) == [
        "explain.input=ha has 2 characters and explain.target=ohlol has 5; each step needs one target"
    ]
    assert "no next character" in errors_in_explain(asked(input="a"))[0]
    assert "is empty" in errors_in_explain(asked(input=""))[0]
    with pytest.raises(UserError, match=r"explain\.input has 1 character that the vocabulary of 18 lacks"):
        lesson(STORED / "cell.ckpt", input="the ?")
