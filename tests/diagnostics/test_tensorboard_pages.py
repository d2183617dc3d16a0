"""TensorBoard in a real browser, on a sweep of two runs: every page shows our content.

UNROLL_SCREENSHOTS=FOLDER keeps a picture of every page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diagnostics.test_watched_runs import SMALL, TEXT
from tests.runs.commands import ROOT, environment, run

PATIENCE = 60_000  # milliseconds: a page may wait for a server that shares its core with it
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two models."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "text.txt").write_text(TEXT)
    words = [*SMALL, "budget=null", "trainer.max_epochs=1", "trainer.limit_train_batches=12"]
    words += ["callbacks.text_samples.length=120", "callbacks.confusions.enabled=false"]
    run("-m", "model=manual,lstm", *words, cwd=folder, timeout=400)
    return folder / "runs"


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """Start TensorBoard on a free port, with the options of `make tensorboard`; its address."""
    (options,) = re.findall(r"tensorboard.main --logdir runs (.*) \$\(ARGS\)", (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), *options.split(), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(TF_CPP_MIN_LOG_LEVEL="3")
    )
    try:
        assert process.stdout is not None
        address = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))), None)
        assert address is not None, "TensorBoard said no address"
        yield address
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def opened(browser):
    """One page for all tests: TensorBoard takes seconds to load, and another of its pages is another fragment."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE)
    yield page
    page.close()


@pytest.fixture
def page(opened, request):
    yield opened
    if "UNROLL_SCREENSHOTS" in os.environ:
        opened.screenshot(path=Path(os.environ["UNROLL_SCREENSHOTS"]) / f"{request.node.name}.png")


def shown(page, text: str) -> None:
    """Wait for a text that is seen: those of the pages before are hidden."""
    page.get_by_text(text, exact=True).locator("visible=true").first.wait_for()


def test_scalars_have_groups_that_a_reader_can_scan(page, address):
    page.goto(f"{address}#scalars")
    for group in ("baseline", "best", "final", "optimizer", "recurrent", "train", "val", "window"):
        shown(page, group)
    assert page.get_by_text("hp_metric").count() == 0


def test_custom_scalars_begin_with_val_and_the_baselines_in_one_chart(page, address):
    page.goto(f"{address}#custom_scalars")
    page.get_by_text("val, bits per character, with the baselines").first.wait_for()
    page.get_by_text("Matches (8)").first.wait_for()  # val and three baselines of each of two runs


def test_images_are_our_figures_at_their_size(page, address):
    page.goto(f"{address}#images")
    shown(page, "gradient/by_lag")
    picture = page.locator("tf-image-loader img").first
    picture.wait_for()
    is_whole = "img => img.complete && img.naturalWidth === 800"
    page.wait_for_function(is_whole, arg=picture.element_handle(), timeout=PATIENCE)
    for group in ("gradient", "hidden", "recurrent", "text", "window"):
        shown(page, group)


def test_texts_are_shown_as_they_are_with_their_temperatures(page, address):
    page.goto(f"{address}#text")
    page.get_by_text("samples/temperature_0.5").first.wait_for()
    sample = page.locator("pre code").first
    sample.wait_for()
    assert 60 <= len(sample.inner_text().strip()) <= 130  # 120 characters, with broken lines
    assert sample.locator("b").count() == 0  # no markup took effect


def test_the_projector_has_a_point_a_character(page, address):
    page.goto(f"{address}#projector")
    inside = page.frame_locator("iframe[src*=projector]").frame_locator("iframe")  # a page of its own, twice framed
    count = inside.locator(".numDataPoints", has_text=str(len(set(TEXT)))).first
    count.wait_for()
    assert count.inner_text() == str(len(set(TEXT)))
    inside.get_by_text("1 tensor found").first.wait_for()


# Every element that fits a selector, those inside of other elements' shadows too.
EVERYWHERE = """const all = (root, selector) => [...root.querySelectorAll('*')].flatMap(
    e => [...(e.matches(selector) ? [e] : []), ...(e.shadowRoot ? all(e.shadowRoot, selector) : [])]);"""
COLUMNS = """all(document, 'vaadin-grid-column').map(column => [
    column._headerCell._content.textContent.trim(), ...column._cells.map(cell => cell._content.textContent.trim())])"""


def table_of(page, columns: int) -> dict[str, list[str]]:
    """The table of the page HParams when it has that many columns with two cells: header -> cells."""
    filled = f"{COLUMNS}.filter(([header, ...cells]) => cells.filter(Boolean).length === 2).length"
    page.wait_for_function(f"() => {{ {EVERYWHERE} return {filled} >= {columns}; }}", timeout=PATIENCE)
    found = page.evaluate(f"() => {{ {EVERYWHERE} return {COLUMNS}; }}")
    return {header: [text for text in cells if text] for header, *cells in found}


def test_hparams_begin_with_what_differs_and_the_results_on_val_in_short_numbers(page, address):
    page.goto(f"{address}#hparams")
    page.get_by_text("Trial ID").first.wait_for()
    table = table_of(page, 10)
    hparams, metrics = [*table][-10:-5], [*table][-5:]
    assert sorted(hparams) == ["model.hidden_size", "model.name", "model.num_layers", "optimizer.lr", "seed"]
    assert metrics == [f"{name}bits_per_character" for name in ("best/val/", "final/val/", "val/")] + [
        "val/accuracy", "train/bits_per_character",
    ]  # fmt: skip
    assert sorted(table["model.name"]) == ["lstm", "manual"]
    assert [table[key][0] for key in ("model.hidden_size", "seed", "optimizer.lr")] == ["8", "0", "0.0027"]
    names = sorted(table["Trial ID"])
    assert [name.split()[0] for name in names] == ["lstm", "manual"]
    assert [re.search(r" (\w+)-\w{12}$", name)[1] for name in names] == ["lstm", "manual"]  # the folders' names
    assert all(0 < float(cell) < 10 for metric in metrics for cell in table[metric])
    more = ["model.nonlinearity", "data.seq_len", "train/loss", "baseline/ngram_5"]
    boxes = f"all(document, '.hparam-checkbox, .metric-checkbox').filter(b => {more}.includes(b.textContent.trim()))"
    page.evaluate(f"() => {{ {EVERYWHERE} for (const box of {boxes}) box.click(); }}")
    table = table_of(page, 14)
    assert sorted(table["model.nonlinearity"]) == ["null", "tanh"]
    assert set(more) <= table.keys()
    assert "hp_metric" not in table
