"""The page of explain.format=html in a real browser: its numbers are ours, and it is used with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from src.config.schema import ExplainConfig
from src.worked_example.bptt_example import Problem, compute, with_weights
from src.worked_example.lesson import lesson_of, render
from tests.runs.commands import ROOT
from tests.runs.test_explain import asked as worked_example

pytestmark = pytest.mark.slow


asked = partial(worked_example, format="html")


@pytest.fixture
def lesson(opened, tmp_path: Path) -> Callable[..., Any]:
    """A function that writes a lesson and opens it."""

    def open_lesson(config: ExplainConfig, width: int = 1280) -> Any:
        (tmp_path / "lesson.html").write_text(render(lesson_of(config), config.explain), encoding="utf-8")
        page = opened(tmp_path / "lesson.html", width)
        page.locator(".cell.on").wait_for()
        return page

    return open_lesson


def agrees(page, p: Problem) -> None:
    """Hold every number that is drawn, and the loss, to ours."""
    n, drawn = (
        compute(p),
        page.eval_on_selector_all("[data-cell]", "all => all.map(one => [one.dataset.cell, one.dataset.value])"),
    )
    assert len(drawn) > 5 * 3 * 3
    for name, value in drawn:
        kind, (l, t, i) = name[0], map(int, name[2:].split(","))  # noqa: E741
        ours = (
            n.yhat[t, i]
            if kind == "y"
            else n.error[t, i]
            if kind == "e"
            else {"z": n.z, "h": n.h, "d": n.delta}[kind][l][t, i]
        )
        assert float(value) == pytest.approx(float(ours), abs=1e-6)
    assert float(page.locator("#loss").get_attribute("data-value")) == pytest.approx(float(n.losses.sum()), abs=1e-6)


def gradient_of(page) -> float:
    return float(page.locator("#gradient").get_attribute("data-value"))


@pytest.mark.parametrize("nonlinearity", ["tanh", pytest.param("relu", marks=pytest.mark.soak)])
def test_layers_and_seed_are_chosen_and_a_slider_moves_loss_and_gradient_as_ours(lesson, nonlinearity):
    page = lesson(asked(num_layers=2, nonlinearity=nonlinearity))
    agrees(page, lesson_of(asked(num_layers=2, nonlinearity=nonlinearity)).problem)
    page.locator("#layers").select_option("3")
    page.locator("#seed").select_option("4")
    p = lesson_of(asked(num_layers=3, seed=4, nonlinearity=nonlinearity)).problem
    agrees(page, p)
    for choice, name, entry in (
        ("U,1", "dU^2", (1, 2)),
        ("b,0", "db^1", (1,)),
        ("V,0", "dV", (1, 2)),
        ("W,2", "dW^3", (1, 2)),
    ):
        page.locator("#matrix").select_option(choice)
        page.locator("#row").select_option(index=entry[0])
        if len(entry) == 2:
            page.locator("#column").select_option(index=entry[1])
        assert gradient_of(page) == pytest.approx(float(compute(p).gradients[name][entry]), abs=1e-6)
    page.locator("#weight").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    weights = {key: weight.clone() for key, weight in p.parameters().items()}
    weights["dW^3"][1, 2] += 0.3
    changed = with_weights(p, weights)
    agrees(page, changed)
    assert gradient_of(page) == pytest.approx(float(compute(changed).gradients["dW^3"][1, 2]), abs=1e-6)
    page.locator("#update").press("Enter")
    n = compute(changed)
    agrees(page, with_weights(p, {key: weight - 0.1 * n.gradients[key] for key, weight in weights.items()}))
    page.locator("#reset").press("Enter")
    agrees(page, p)


def lit(page, kind: str) -> set[str]:
    return set(page.eval_on_selector_all(f".cell.{kind}", "all => all.map(one => one.dataset.cell)"))


def test_the_keys_walk_through_time_and_a_delta_lights_its_two_sources_with_the_product(lesson):
    page = lesson(asked(num_layers=2))
    n, p = compute(lesson_of(asked(num_layers=2)).problem), lesson_of(asked(num_layers=2)).problem
    for key in ("d", "ArrowLeft", "ArrowLeft", "ArrowDown"):  # from step 4, unit 1 of layer 1
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.dataset.cell") == "d,0,1,1"
    assert lit(page, "on") == {"d,0,1,1"}
    assert lit(page, "above") == {f"d,1,1,{j}" for j in range(3)}
    assert lit(page, "later") == {f"d,0,2,{j}" for j in range(3)}
    text = page.locator("#lines").inner_text().replace("−", "-")
    for weights, delta, total in (
        (p.U[1][:, 1], n.delta[1][1], n.above[0][1, 1]),
        (p.W[0][:, 1], n.delta[0][2], n.later[0][1, 1]),
    ):
        products = " + ".join(f"({float(w):.4f})({float(d):.4f})" for w, d in zip(weights, delta, strict=True))
        assert f"= {products} = {float(total):.4f}" in " ".join(text.split())
    page.keyboard.press("ArrowRight")
    assert lit(page, "on") == {"d,0,2,1"}
    seen = []
    for _ in range(5 * 5):  # 5 steps forward of two layers and an output, 5 back of two layers
        page.keyboard.press("n")
        seen += lit(page, "on")
    assert [name[:5] for name in seen[:4]] == ["z,0,0", "z,1,0", "y,0,0", "z,0,1"]
    assert [name[:5] for name in seen[-4:]] == ["d,1,1", "d,0,1", "d,1,0", "d,0,0"]
    page.keyboard.press("p")
    assert lit(page, "on") == {"d,1,0,0"}
    page.locator("[data-cell='d,1,3,2']").hover()
    assert lit(page, "above") == {f"e,0,3,{k}" for k in range(4)}
    assert lit(page, "later") == {f"d,1,4,{j}" for j in range(3)}
    page.locator("#lines button").first.press("Enter")  # V, the first factor, goes to the slider
    assert page.locator("#matrix").input_value() == "V,0"


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.soak), 400])
def test_the_page_fits_a_projector_and_a_phone_and_no_text_can_leave_its_place(lesson, width):
    text = "</script><b>&amp;\n中\u3000"  # the last one's label has six letters
    config = asked(num_layers=3, hidden_size=8, input=text, nonlinearity="relu")
    page = lesson(config, width)
    agrees(page, lesson_of(config).problem)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("b b").count() == 0
    for key in ["z", *["ArrowLeft"] * 12, "ArrowUp", "y", "e", "d", *["ArrowRight"] * 12]:
        page.keyboard.press(key)
        cell = page.locator(".cell.on").bounding_box()
        assert min(cell["x"], width - cell["x"] - cell["width"]) >= 0
    page.locator("#language").select_option("zh")
    assert "误差项" in page.locator("#what").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_trained_network_of_many_units_is_shown_a_few_at_a_time(lesson):
    config = asked(ROOT / "tests/stored/models/cell.ckpt", input="the cat sat on the mat and the dog.")
    page = lesson(config)
    agrees(page, lesson_of(config).problem)
    assert page.locator("#seed").is_hidden()
    chosen = page.locator("[data-cell^='y']").last.get_attribute("data-cell")
    page.locator(f"[data-cell='{chosen}']").click()
    page.locator("#reset").click()
    assert page.locator(".cell.on").get_attribute("data-cell") == chosen  # of more symbols than units
