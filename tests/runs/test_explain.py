"""python -m src.explain: backpropagation through time as numbers that agree with autograd's, and fit a terminal."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from src.config.schema import ExplainConfig, ExplainOptions, ModelConfig
from src.models.language_model import build_model
from src.explain import errors_in_explain
from src.worked_example.bptt_example import build_problem, compute, differences
from src.worked_example.document import Table, as_markdown, as_text, columns, vector
from tests.runs.commands import run


def explained(num_layers: int = 1, nonlinearity: str = "tanh", hidden_size: int = 3):
    problem = build_problem(ExplainOptions("hello", "ohlol", hidden_size, num_layers, nonlinearity, seed=0), "ehlo")
    return problem, compute(problem)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_every_delta_and_gradient_is_autograds_and_the_fast_paths(num_layers, nonlinearity):
    problem, ours = explained(num_layers, nonlinearity)
    held = differences(problem, ours)
    assert len(held) == 5 * num_layers + 2
    assert max(d.from_autograd for d in held) < 1e-12
    assert max(d.from_fast_path for d in held if d.from_fast_path is not None) < 1e-12
    assert min(d.largest for d in held) > 0  # nothing agrees by being zero


@pytest.mark.parametrize("name", ["delta", "above", "sums"])
def test_a_wrong_number_is_seen_in_the_differences(name):
    problem, ours = explained(num_layers=2)
    wrong = ours.sums["dU^2"] if name == "sums" else getattr(ours, name)[1]
    wrong[0, 0] += 1e-6
    assert max(d.from_autograd for d in differences(problem, ours)) > 1e-7


def test_the_weights_are_those_that_training_starts_from():
    config = ModelConfig(_target_="src.models.manual.ManualRNN", hidden_size=3, num_layers=2)
    torch.manual_seed(7)
    trained = build_model(config, vocab_size=4).double().state_dict()
    before = torch.random.get_rng_state()
    problem = build_problem(ExplainOptions("hello", "ohlol", 3, 2, "tanh", seed=7), "ehlo")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(weight, trained[name]) for name, weight in problem.model.state_dict().items())
    assert torch.equal(problem.U[1], trained["recurrence.layers.1.weight"][:, :3])
    assert torch.equal(problem.c, trained["readout.bias"])


def test_the_sums_begin_at_the_last_step_and_end_as_the_gradient():
    problem, ours = explained()
    last = torch.outer(ours.delta[0][4], problem.x[4])
    assert torch.equal(ours.sums["dU^1"][4], last)
    assert torch.equal(ours.sums["dU^1"][3], last + torch.outer(ours.delta[0][3], problem.x[3]))
    assert torch.allclose(ours.gradients()["dW^1"], ours.delta[0][1:].T @ ours.h[0][:-1], atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("hello", "ohlol"), ("it's a", "t's a,")], ids=str)
def test_the_command_on_the_page_trains_from_the_weights_on_the_page(words, tmp_path):
    asked = [f"explain.input={words[0]}", f"explain.target={words[1]}", "explain.num_layers=2", "explain.seed=4"]
    text = explain(*asked, cwd=tmp_path)
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


@pytest.mark.slow
def test_hello_is_explained_within_a_hundred_columns(tmp_path):
    text = explain(cwd=tmp_path)
    assert max(map(len, text.splitlines())) <= 100
    for equation in (
        "z_t = U x_t + W h_{t-1} + b",
        "delta_t = f'(z_t) * ( V^T (yhat_t - y_t) + W^T delta_{t+1} )",
        "dU = sum_t delta_t (x_t)^T",
        "dV = sum_t (yhat_t - y_t) (h_t)^T",
    ):
        assert equation in text
    losses = [float(loss) for loss in re.findall(r"^ \d   [ehlo] .* (\d\.\d{4})$", text, re.MULTILINE)]
    (total,) = re.findall(r"L = sum_t L_t = .* = (\S+)", text)
    assert len(losses) == 5
    assert abs(sum(losses) - float(total)) < 3e-4
    assert 'which spells "hlllo"' in " ".join(text.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_three_layers_show_both_paths_of_the_pages_formula_and_name_its_errors(tmp_path):
    text = explain("explain.num_layers=3", cwd=tmp_path)
    assert max(map(len, text.splitlines())) <= 100

    def row(beginning: str) -> torch.Tensor:
        (found,) = [line for line in text.splitlines() if line.startswith(f" {beginning}")]
        return torch.tensor([float(number) for number in re.findall(r"-?\d\.\d{4}", found)])

    by_time, by_layer = row("by W, along time"), row("by U, down from layer 3")
    both, section_2, as_printed = row("delta_1^2, the sum"), row("section 2: layer 2, t = 1"), row("as printed, with")
    assert by_time.abs().min() > 0
    assert by_layer.abs().min() > 0
    assert torch.allclose(by_time + by_layer, both, atol=2e-4)
    assert torch.equal(both, section_2)
    assert (as_printed - both).abs().max() > 0.01
    assert len(re.findall(r"^Error in the page: ", text, re.MULTILINE)) == 3


@pytest.mark.slow
def test_markdown_has_equations_as_code_and_another_input_is_explained_too(tmp_path):
    page = explain("explain.format=markdown", "explain.input=naïve,", "explain.target=aïve, ",
                   "explain.nonlinearity=relu", "explain.seed=3", cwd=tmp_path)  # fmt: skip
    assert page.startswith('# Backpropagation through time: "naïve," -> "aïve, "')
    assert page.count("```text\n") == 8
    assert "```text\ndelta_t = f'(z_t) * ( V^T (yhat_t - y_t) + W^T delta_{t+1} )\n```" in page
    assert "hlllo" not in page  # an error of the page with another input


def test_all_errors_are_reported_at_once():
    wrong = ExplainOptions("ha", "ohlol", 80, 7, "tanh", -1, "txt")
    assert errors_in_explain(ExplainConfig(wrong)) == [
        "explain.hidden_size=80: expected 1 to 8",
        "explain.num_layers=7: expected 1 to 6",
        f"explain.seed=-1: expected at least 0 and at most {2**64 - 1}",
        "explain.format=txt: expected one of text, markdown; did you mean text?",
        "explain.input=ha has 2 characters and explain.target=ohlol has 5; each step needs one target",
    ]
