"""TensorBoard in a real browser, on a sweep of six runs: every page shows our content.

UNROLL_SCREENSHOTS=FOLDER keeps a picture of every page.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs.commands import environment, run

PATIENCE = 60_000  # milliseconds: a page may wait for a server that shares its core with it
TEXT = "What is aught, but as 'tis valued? <b>markup</b> costs $5 & `more`.\n" * 40
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs of three models."""
    folder = tmp_path_factory.mktemp("six")
    (folder / "text.txt").write_text(TEXT)
    run(
        "-m", "model=cell,manual,lstm", "seed=0,1", "data=text", "data.path=text.txt", "data.seq_len=9",
        "data.batch_size=4", "model.num_layers=2", "model.hidden_size=8", "trainer.max_epochs=1",
        "trainer.limit_train_batches=12", "trainer.log_every_n_steps=3", "callbacks.text_samples.length=80",
        cwd=folder, timeout=400,
    )  # fmt: skip
    return folder / "runs"


@contextlib.contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """Start TensorBoard on a free port; its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", "0"]
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
def address(runs) -> Iterator[str]:
    with tensorboard(runs) as found:
        yield found


@pytest.fixture
def page(browser, request):
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened.set_default_timeout(PATIENCE)
    yield opened
    if "UNROLL_SCREENSHOTS" in os.environ:
        opened.screenshot(path=Path(os.environ["UNROLL_SCREENSHOTS"]) / f"{request.node.name}.png")
    opened.close()


def test_scalars_have_groups_that_a_reader_can_scan(page, address):
    page.goto(f"{address}#scalars")
    for group in ("baseline", "best", "final", "optimizer", "recurrent", "train", "val", "window"):
        page.get_by_text(group, exact=True).first.wait_for()
    assert page.get_by_text("hp_metric").count() == 0


def test_custom_scalars_draw_train_val_and_baselines_in_one_chart(page, address):
    page.goto(f"{address}#custom_scalars")
    page.get_by_text("bits per character: train, val and baselines").wait_for()
    page.get_by_text("Matches (30)").first.wait_for()  # train, val and three baselines of each of six runs


def test_images_are_our_figures_at_their_size(page, address):
    page.goto(f"{address}#images")
    page.get_by_text("gradient/by_lag").first.wait_for()
    picture = page.locator("tf-image-loader img").first
    picture.wait_for()
    page.wait_for_function(
        "img => img.complete && img.naturalWidth === 800", arg=picture.element_handle(), timeout=PATIENCE
    )
    for group in ("gradient", "hidden", "recurrent", "text", "window"):
        page.get_by_text(group, exact=True).first.wait_for()


def test_texts_are_shown_as_they_are_with_their_temperatures(page, address):
    page.goto(f"{address}#text")
    page.get_by_text("samples/temperature_0.5").first.wait_for()
    sample = page.locator("pre code").first
    sample.wait_for()
    assert len(sample.inner_text().strip()) >= 60
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


def table_of(page) -> tuple[dict[str, list[str]], set[str]]:
    """The page HParams with every box ticked: column -> its six cells, and the keys on the left."""
    page.get_by_text("Trial ID").first.wait_for()
    keys = {text.strip() for text in page.locator(".hparam-checkbox").all_inner_texts()}
    boxes = "for (const box of all(document, '.hparam-checkbox, .metric-checkbox')) if (!box.checked) box.click();"
    page.evaluate(f"() => {{ {EVERYWHERE} {boxes} }}")
    columns = """all(document, 'vaadin-grid-column').map(column => [
        column._headerCell._content.textContent.trim(),
        ...column._cells.map(cell => cell._content.textContent.trim())])"""
    count = "all(document, 'vaadin-grid-column').length"
    page.wait_for_function(f"() => {{ {EVERYWHERE} return {count} > {len(keys)}; }}", timeout=PATIENCE)
    page.wait_for_timeout(5000)  # the grid fills its cells some frames later
    found = page.evaluate(f"() => {{ {EVERYWHERE} return {columns}; }}")
    return {header: [text for text in cells if text] for header, *cells in found}, keys


def test_hparams_have_a_row_a_run_a_column_a_key_and_metrics_that_are_there_twice_in_a_row(browser, runs):
    tables = []
    for _ in range(2):  # two starts of TensorBoard: its columns must not change from one to the other
        with tensorboard(runs) as address:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.set_default_timeout(PATIENCE)
            page.goto(f"{address}#hparams")
            tables.append(table_of(page))
            page.close()
    table, keys = tables[0]
    assert tables[1] == tables[0]
    assert len(table["Trial ID"]) == len(set(table["Trial ID"])) == 6  # names that tell the runs apart
    assert sorted(name.split()[0] for name in table["Trial ID"]) == ["cell", "cell", "lstm", "lstm", "manual", "manual"]
    assert {"model.name", "model.nonlinearity", "seed", "optimizer.lr", "data.seq_len"} <= keys <= set(table)
    assert {key: len(table[key]) for key in keys} == dict.fromkeys(keys, 6)
    assert sorted(table["model.nonlinearity"]) == ["null", "null", "tanh", "tanh", "tanh", "tanh"]
    for metric in ("best/val/bits_per_character", "final/val/cross_entropy", "val/accuracy", "train/loss"):
        values = [float(cell) for cell in table[metric]]
        assert len(values) == 6
        assert all(value >= 0 for value in values)
    assert len(set(table["best/val/bits_per_character"])) == 4  # cell and manual are one network
    assert "hp_metric" not in table
