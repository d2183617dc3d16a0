"""The HTML report, opened in a real browser: one file, sorted by a click, light and dark, asking no network."""

import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from fabricated import fabricate
from headless import CHROMIUM, Browser

from src.reports import chart, page
from src.reports.compare import compare
from src.reports.curves import curve_of
from src.reports.metric import Metric
from src.reports.runs import find_runs
from src.reports.table import build

HOSTILE = "<script>alert(1)</script>\"'&"


def make(root):
    """Four groups of three seeds, one of them of a hostile name, and one failed run."""
    for model, shift in (("manual", 0.0), ("cell", 0.1), ("stacked", 0.15), (HOSTILE, 0.3)):
        for seed in range(3):
            end = 1.5 + shift + seed / 100
            curve = [(step, end + (4.2 - end) * math.exp(-step / 200)) for step in range(0, 2001, 50)]
            fabricate(root / f"run_{shift}_{seed}", end, seed=seed, model=model, curve=curve, config="seed: 0\n",
                      record={"seconds": 60 - 100 * shift + seed})  # fmt: skip
    fabricate(root / "bad", None, seed=7, status="failed", config="seed: 7\n",
              record={"error": {"type": "ValueError", "message": HOSTILE}})  # fmt: skip
    runs = find_runs([str(root)])
    table = build(runs, Metric("val/cross_entropy"), kept="model")
    return page.render(table, compare(table, "model"), "python -m src.report runs")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "report.html"
    target.write_text(make(target.parent / "runs"), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine; Debian: apt-get install chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def column(browser, number):
    cells = f"[...document.querySelectorAll('#runs tbody tr')].map(row => row.cells[{number}].textContent.trim())"
    return browser.run(cells)


def test_the_page_is_one_file_that_names_no_address(report):
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)|<link|<img| src=", text)
    assert "default-src 'none'" in text


def test_every_tag_is_closed_and_a_hostile_name_stays_text(report):
    class Balance(HTMLParser):
        void = frozenset({"meta", "input", "rect", "path", "circle"})

        def __init__(self):
            super().__init__()
            self.open, self.scripts = [], 0

        def handle_starttag(self, tag, attrs):
            self.scripts += tag == "script"
            if tag not in self.void:
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag not in self.void:
                assert self.open.pop() == tag

    parser = Balance()
    parser.feed(report.read_text(encoding="utf-8"))
    assert (parser.open, parser.scripts) == ([], 1)


def test_a_curve_is_the_mean_of_the_seeds_where_all_of_them_are(tmp_path):
    fabricate(tmp_path / "a", seed=0, curve=[(0, 4.0), (100, 3.0), (200, 2.0)])
    fabricate(tmp_path / "b", seed=1, curve=[(0, 4.0), (50, 3.0), (100, 2.0)])  # stopped early, other steps
    curve = curve_of(find_runs([str(tmp_path)]), "val/cross_entropy")
    assert curve.steps == [0, 50, 100]
    assert curve.mean == [4.0, 3.25, 2.5]  # at 50 the first run is half-way between 4 and 3
    assert curve.sd == [0.0, pytest.approx(math.sqrt(0.125)), pytest.approx(math.sqrt(0.5))]
    assert curve.n == 2


def test_no_two_lines_look_alike():
    looks = {chart.look(place) for place in range(1, page.MOST_CURVES + 1)}
    assert len(looks) == page.MOST_CURVES == 24


@pytest.mark.parametrize(("low", "high"), [(1.47, 2.31), (0.0, 1e-4), (-3, 12000.0)])
def test_ticks_are_round_and_inside(low, high):
    ticks = chart.ticks(low, high, 6)
    assert 3 <= len(ticks) <= 8
    assert low - 1e-9 <= ticks[0] < ticks[-1] <= high + 1e-9
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)


@pytest.mark.parametrize("curve", [[], [(0, 2.0)], [(5, 2.0), (5, 2.5)], [(0, 2.0), (100, 2.0)], [(0, float("nan"))]])
def test_a_curve_of_few_or_equal_points_is_drawn_without_a_fuss(tmp_path, curve):
    fabricate(tmp_path / "a", curve=curve, baselines={})
    text = page.render(build(find_runs([str(tmp_path)]), Metric("val/cross_entropy")))
    assert "nan" not in text.partition("<h2>How to read")[0].partition("</style>")[2].replace("manual", "")


def test_many_rows_say_how_many_have_a_curve(tmp_path):
    for i in range(40):
        fabricate(tmp_path / str(i), 1.5 + i / 100, hidden_size=i + 1)
    text = page.render(build(find_runs([str(tmp_path)]), Metric("val/cross_entropy")))
    assert "Of 40 rows the best 24 have a curve here" in text
    assert text.count("<g data-row=") == 24


@pytest.mark.slow
def test_a_click_sorts_and_a_second_click_turns_the_order(browser, report):
    browser.open(report.as_uri())
    places = column(browser, 0)
    assert [place for place in places if place] == ["1", "2", "3", "4"]
    heads = browser.run("[...document.querySelectorAll('#runs th')].map(head => head.textContent)")
    seconds = heads.index("seconds")
    button = f"document.querySelectorAll('#runs th button')[{seconds}]"
    browser.click(button)
    assert column(browser, seconds) == ["31.0", "46.0", "51.0", "61.0", "", "", ""]  # what has no value comes last
    assert column(browser, 0)[:4] == ["4", "3", "2", "1"]
    assert browser.run("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "ascending"
    browser.click(button)
    assert column(browser, seconds) == ["61.0", "51.0", "46.0", "31.0", "", "", ""]
    model = heads.index("model")
    browser.click(f"document.querySelectorAll('#runs th button')[{model}]")
    assert [name for name in column(browser, model) if name in ("cell", "manual", "stacked", HOSTILE)] == [
        HOSTILE, "cell", "manual", "stacked"]  # fmt: skip
    address = browser.run("location.hash")
    assert address == f"#sort={model + 1}"
    in_order = column(browser, model)
    browser.open(report.as_uri() + address)  # the order is part of the address
    assert column(browser, model) == in_order
    assert browser.complaints() == []


@pytest.mark.slow
def test_boxes_show_and_hide_lines_and_their_numbers_never_overlap(browser, report):
    browser.open(report.as_uri())
    shown = "[...document.querySelectorAll('#chart g[data-row]')].filter(g => !g.hasAttribute('hidden')).length"
    assert browser.run(shown) == 4
    browser.click("document.querySelector('#runs tbody input')")
    assert browser.run(shown) == 3
    browser.click("document.querySelector('#runs tbody input')")
    assert browser.run(shown) == 4
    heights = (
        "[...document.querySelectorAll('#chart g:not([hidden]) > text.place')].map(t => Number(t.getAttribute('y')))"
    )
    ends = sorted(browser.run(heights))
    assert len(ends) == 4
    assert min(b - a for a, b in pairwise(ends)) >= 12.9
    browser.hover("document.querySelector('#runs tbody tr')")
    assert browser.run("document.querySelectorAll('#chart.chosen g.chosen').length") == 1


@pytest.mark.slow
def test_the_page_asks_no_network_and_runs_no_foreign_script(browser, report):
    browser.open(report.as_uri())
    assert [address for address in browser.requests() if not address.startswith(("file:", "about:"))] == []
    assert browser.complaints() == []
    assert HOSTILE in browser.run("document.querySelector('#runs').innerText")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_from_their_ground(browser, report, scheme):
    browser.prefer(scheme)
    browser.open(report.as_uri())
    ground = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert (ground > 0.5) == (scheme == "light")
    text = ("body", "color"), (".dim", "color"), ("tr.baseline td", "color"), ("#chart text", "fill")
    lines = [(f"#runs .swatch .c{i}", "stroke") for i in range(4)]
    for needed, parts in ((4.5, text), (3.0, lines)):  # WCAG 2.1: body text, graphics
        for selector, name in parts:
            colour = luminance(browser.run(f"getComputedStyle(document.querySelector('{selector}')).{name}"))
            contrast = (max(colour, ground) + 0.05) / (min(colour, ground) + 0.05)
            assert contrast >= needed, (selector, contrast)
    browser.click("document.getElementById('theme')")
    turned = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert (turned > 0.5) != (scheme == "light")
    browser.prefer("light")


def luminance(colour):
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.1)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
