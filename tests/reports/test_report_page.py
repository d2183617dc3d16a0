"""The HTML report, opened in a real browser: one file, sorted by a click, light and dark, asking no network."""

import base64
import math
import re
from html.parser import HTMLParser

import pytest
from fabricated import NATS, fabricate

from src.reports import figures
from src.reports.formatting import sections, to_html
from src.reports.runs import find_runs
from src.reports.table import build, resolve_metric

HOSTILE = "<script>alert(1)</script>\"'&$x"


def page_of(root):
    report = build(find_runs(root), NATS, kept=["model"])
    return to_html(report, sections(report, ["model"]), "python -m src.report runs")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Four groups of three seeds, one of them of a hostile name, and one failed run."""
    root = tmp_path_factory.mktemp("page")
    for model, shift in (("manual", 0.0), ("cell", 0.1), ("stacked", 0.15), (HOSTILE, 0.3)):
        for seed in range(3):
            end = 1.5 + shift + seed / 100
            curve = [(step, end + (4.2 - end) * math.exp(-step / 200)) for step in range(0, 2001, 50)]
            fabricate(root / "runs" / f"run_{shift}_{seed}", end, seed=seed, model=model, curve=curve,
                      record={"seconds": 60 - 100 * shift + seed})  # fmt: skip
    fabricate(root / "runs" / "bad", None, seed=7, status="failed",
              record={"error": {"type": "ValueError", "message": HOSTILE}})  # fmt: skip
    (root / "report.html").write_text(page_of(root / "runs"), encoding="utf-8")
    return root / "report.html"


@pytest.fixture
def page(page_file, opened):
    """The report; `opened` holds that it asks no network and raises no error."""
    return opened(page_file)


def column(page, number):
    return page.locator("table").first.locator(f"tbody td:nth-child({number + 1})").all_inner_texts()


def test_every_tag_is_closed_a_hostile_name_stays_text_and_no_address_is_named(page_file):
    class Balance(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.scripts = [], 0

        def handle_starttag(self, tag, attrs):
            self.scripts += tag == "script"
            self.open += [tag] if tag not in ("meta", "img") else []

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    text = page_file.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(text)
    assert (parser.open, parser.scripts) == ([], 1)
    assert not re.search(r"https?://|@import|url\(|<link|src=\"(?!data:)", text)
    assert "default-src 'none'" in text


def test_the_pictures_are_svg_with_a_line_and_a_number_for_each_row(page_file):
    pictures = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page_file.read_text(encoding="utf-8"))
    curves, values = (base64.b64decode(picture).decode() for picture in pictures)
    assert curves.count("FillBetweenPolyCollection") == 4  # a band for each row
    assert "model manual (n = 3)" in re.sub(r"\s+", " ", curves)
    assert "script&gt;" in values


def test_a_curve_is_the_mean_of_the_seeds_where_all_of_them_are(tmp_path):
    fabricate(tmp_path / "a", seed=0, curve=[(0, 4.0), (100, 3.0), (200, 2.0)])
    fabricate(tmp_path / "b", seed=1, curve=[(0, 4.0), (50, 3.0), (100, 2.0)])  # stopped early, other steps
    frame = figures.curve_of(find_runs(tmp_path), "step", "val/cross_entropy")
    assert list(frame.index) == [0, 50, 100]
    assert list(frame.mean(axis=1)) == [4.0, 3.25, 2.5]  # at 50 the first run is half-way between 4 and 3
    assert list(frame.std(axis=1)) == [0.0, pytest.approx(math.sqrt(0.125)), pytest.approx(math.sqrt(0.5))]


def test_only_baselines_of_what_is_drawn_stand_beside_a_curve(tmp_path):
    fabricate(tmp_path / "a", 1.5, evaluations={"test": 1.6})
    found = find_runs(tmp_path)
    for split, drawn in ((None, True), ("test", False)):  # there is no curve of the test split
        metric = resolve_metric(None, split, None, found)
        (axes,) = figures.draw(build(found, metric).tables[0], metric)["curves_by_steps"].axes
        assert any("5-gram" in str(line.get_label()) for line in axes.lines) == drawn


@pytest.mark.parametrize("curve", [[], [(0, 2.0)], [(5, 2.0), (5, 2.5)], [(0, 2.0), (100, 2.0)], [(0, float("nan"))]])
def test_a_curve_of_few_or_equal_points_is_drawn_without_an_error(tmp_path, curve):
    fabricate(tmp_path / "a", curve=curve, baselines={})
    assert "Final values" in page_of(tmp_path)


@pytest.mark.slow
def test_a_click_sorts_and_a_second_click_turns_the_order(page, page_file):
    assert [place for place in column(page, 0) if place] == ["1", "2", "3", "4"]
    heads = page.locator("table").first.locator("th").all_inner_texts()
    seconds = heads.index("seconds")
    button = page.locator("table").first.locator("th button").nth(seconds)
    button.click()
    assert column(page, seconds) == ["31.0", "46.0", "51.0", "61.0", "", "", ""]  # what has no value comes last
    assert column(page, 0)[:4] == ["4", "3", "2", "1"]
    button.click()
    assert column(page, seconds) == ["61.0", "51.0", "46.0", "31.0", "", "", ""]
    assert page.evaluate("['[-0.2, 0.1]', '1,234', '<0.001', '3 of 5'].map(number)") == [-0.2, 1234, 0.001, 3]
    address = page.url
    assert address.endswith(f"#sort=-{seconds + 1}")
    page.goto("about:blank")
    page.goto(address)  # the order is part of the address
    assert column(page, seconds)[:4] == ["61.0", "51.0", "46.0", "31.0"]


@pytest.mark.slow
def test_the_page_asks_no_network_runs_no_foreign_script_and_fits_a_phone(page):
    assert HOSTILE in page.locator("table").first.inner_text()
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
