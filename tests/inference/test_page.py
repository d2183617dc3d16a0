"""The page of format=html in a real browser: it writes and scores what Python does with the same rounded weights."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src import load
from src.errors import UserError
from src.inference import page as page_module
from src.inference.load import TrainedModel
from src.inference.page import html_page, rounded_to_float16
from tests.fabricated_run import VERSE, fabricate

NAMES = "anna\nbob\nclara\n\ndora\n" * 20
CHINESE = "江畔何人初见月,江月何年初照人。\n人生代代无穷已,江月年年望相似。\n" * 9
# model, text, prompt, keys: each kind of network, 1 to 3 layers, and each way of a text to symbols
CASES = {
    "cell, relu, 1 layer": ("cell", VERSE, "day", {"model.nonlinearity": "relu", "model.num_layers": 1}),
    "stacked, tanh, 2 layers, lower case, unknown characters": (
        "stacked", VERSE, "Day €",
        {"model.init": "orthogonal", "model.dropout": 0.4, "data.lowercase": True, "data.unknown": "map"},
    ),
    "manual, tanh, 3 layers, skip, Chinese": ("manual", CHINESE, "江月", {"model.num_layers": 3, "model.skip": "both"}),
    "lstm, 2 layers, bytes": ("lstm", CHINESE, "江月", {"data.encoding": "bytes"}),
    "gru, 3 layers, skip from the input, a list, float64": (
        "gru", NAMES, "",
        {"data": "lines", "model.num_layers": 3, "model.skip": "input", "trainer.precision": "64-true"},
    ),
    "é in two parts": ("manual", "abce\u0301fghijklm" * 9, "é", {"model.readout": "identity", "model.num_layers": 1}),
}  # fmt: skip


@pytest.fixture
def exported(opened, tmp_path: Path, monkeypatch) -> Callable[..., Any]:
    """A function that exports a model and opens its page."""
    monkeypatch.setattr(page_module, "MEASURED", 100)

    def open_page(trained: TrainedModel, example: str | None = None) -> Any:
        (tmp_path / "page.html").write_text(html_page(trained, example)[0], encoding="utf-8")
        page = opened(tmp_path / "page.html")
        page.locator("#speed").select_option("0")
        return page

    return open_page


def press(page: Any, button: str, **fields: Any) -> str:
    """Set fields, press a button, wait for the end and return the text."""
    for name, value in fields.items():
        page.locator(f"#{name}").fill(str(value))
    page.locator(f"#{button}").click()
    page.locator("#more:enabled").wait_for()
    return str(page.locator("#text").evaluate("one => one.textContent"))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "text", "prompt", "keys"), CASES.values(), ids=CASES)
def test_at_temperature_0_it_writes_and_of_any_text_it_scores_what_python_does(
    exported: Callable[..., Any], tmp_path: Path, model: str, text: str, prompt: str, keys: dict[str, Any]
) -> None:
    data = {"data": keys["data"]} if "data" in keys else {}
    rest = {key: value for key, value in keys.items() if key != "data"}
    trained = load(fabricate(tmp_path / "run", model, text, loud=1.5, **data, **rest))
    page, rounded = exported(trained), rounded_to_float16(trained)
    written = press(page, "write", prompt=prompt, temperature=0, length=150)
    prompt = unicodedata.normalize("NFD", prompt)  # the page finds the form that the model knows
    read = trained.in_its_case(prompt).replace("€", "\ufffd")  # the page shows what the model reads
    assert written == rounded.sample(read or None, length=150, temperature=0)
    whole = prompt + text[:200]
    shown = press(page, "read", prompt=unicodedata.normalize("NFC", whole))
    assert shown == trained.in_its_case(whole).replace("€", "\ufffd") + "\n" * bool(data)
    found = [(one, bits) for one, bits in page.evaluate("shown.map(one => [one.text, one.bits])") if bits is not None]
    expected = [(one, bits) for one, bits in rounded.score(whole).readable() if bits is not None]
    assert [one for one, _ in found] == [one for one, _ in expected]
    assert [bits for _, bits in found] == pytest.approx([bits for _, bits in expected], abs=1e-3)
    (mean,) = re.findall(r"[\d.]+(?= bits per character)", page.locator("#summary").inner_text())
    assert float(mean) == pytest.approx(rounded.score(whole).bits_per_character, abs=1e-3)


@pytest.mark.slow
def test_a_seed_repeats_a_text_the_keys_walk_through_it_and_a_unit_colours_it(exported, tmp_path):
    page = exported(load(fabricate(tmp_path / "run", loud=1.5)))
    first = press(page, "write", prompt="rain", temperature=1, length=200)
    other = press(page, "another")
    assert first == press(page, "write", seed=0) != other == press(page, "write", seed=1)
    assert press(page, "more")[:204] == other
    page.locator("#text").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#detail").inner_text().startswith("Character 3, “i”: ")
    page.locator("#units").click(position={"x": 5, "y": 5})  # the first unit
    value = page.evaluate("shown[2].units[0]")
    assert f"Unit 1 of layer 1: {value:.3f}" in page.locator("#detail").inner_text()
    backgrounds = "[...document.querySelectorAll('#text span')].map(one => one.style.background)"
    assert all("--plus" in one or "--minus" in one for one in page.evaluate(backgrounds))
    page.locator("#layer").fill("")  # and so that a two may follow
    page.locator("#unit").fill("2.5")
    assert press(page, "write", seed=0) == first
    page.locator("#prompt").fill("€")
    page.locator("#read").click()
    assert "does not know “€”" in page.locator("#said").inner_text()
    page.locator("#prompt").fill("rain")
    page.locator("#length").fill("")
    page.locator("#write").press("Enter")
    assert page.locator("#said").inner_text() == "length: expected a number from 1 to 10,000."


@pytest.mark.slow
def test_two_layers_of_448_are_under_2_mb_fit_a_phone_and_no_text_leaves_its_place(exported, tmp_path):
    hostile = "</script><b>&amp;\n"
    symbols = "".join(map(chr, range(32, 96)))
    trained = load(fabricate(tmp_path / "run", text=(hostile + symbols) * 9, loud=1, **{"model.hidden_size": 448}))
    named = dataclasses.replace(trained.config, data=dataclasses.replace(trained.config.data, name="<b>mine</b>"))
    trained = dataclasses.replace(trained, config=named)
    page = exported(trained, example=hostile)
    assert (tmp_path / "page.html").stat().st_size < 2_000_000
    assert page.locator("#prompt").input_value() == hostile
    assert press(page, "write", length=300).startswith(hostile)
    assert page.locator("b").count() == 0
    assert page.locator("h1").inner_text().endswith("<b>mine</b>")
    for width, scheme in ((1280, "light"), (400, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_holds_no_text_and_no_path_and_says_what_rounding_costs(tmp_path):
    trained = load(fabricate(tmp_path / "run", loud=1.5))
    page, cost = html_page(trained)
    assert str(tmp_path) not in page
    assert "text.txt" not in page
    assert [VERSE[at : at + 6] for at in range(len(VERSE) - 6) if VERSE[at : at + 6] in page] == []
    assert 0 < abs(cost) < 0.01
    assert "that it wrote itself" in page


def test_a_class_of_one_s_own_a_task_and_weights_beyond_float16_are_refused(tmp_path):
    trained = load(fabricate(tmp_path / "run"))
    own = dataclasses.replace(trained.config, model=dataclasses.replace(trained.config.model, _target_="mine.RNN"))
    with pytest.raises(UserError, match=r"mine\.RNN has equations of its own.*use format=onnx"):
        html_page(dataclasses.replace(trained, config=own))
    task = dataclasses.replace(trained.config, data=dataclasses.replace(trained.config.data, name="copy"))
    with pytest.raises(UserError, match="data=copy is a generated task"):
        html_page(dataclasses.replace(trained, config=task))
    with torch.no_grad():
        trained.model.readout.bias[0] = 70000.0  # type: ignore[index,union-attr]
    with pytest.raises(UserError, match=r"readout\.bias holds 70000, and float16 ends at 65,504"):
        html_page(trained)
