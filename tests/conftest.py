"""What holds for all tests: signals as a terminal has them, and a browser.

UNROLL_SCREENSHOTS=FOLDER keeps a picture of every page of ours that is opened.
"""

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from src.process import heavy_imports

with heavy_imports():
    import lightning.pytorch  # noqa: F401  # before a test module imports it, and scipy and matplotlib with it
gc.set_threshold(100_000)  # as a command starts; a collection at each 700 new objects takes a tenth of all tests
if "PYTEST_XDIST_WORKER" not in os.environ:  # an empty cache, whose folder the worker processes inherit
    CACHE = tempfile.TemporaryDirectory(prefix="unroll-cache-")
    os.environ["UNROLL_CACHE"] = CACHE.name
# The same examples each time, and no time limit: on a busy machine the result must be the same
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and a child would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)  # as is this one in a shell's background job

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, headless, driven by Playwright; a test is skipped where one of them is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium here: make browser installs it")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def opened(browser, request):
    """A function that opens a file; the page may ask no network and raise no error."""
    pages, asks, errors = [], [], []

    def open_file(file, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 800}, locale="en-GB")
        page.on("request", lambda request: asks.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_file
    for number, page in enumerate(pages):
        if "UNROLL_SCREENSHOTS" in os.environ:
            name = f"{request.node.name}_{number}.png".replace("/", "_")
            page.screenshot(path=Path(os.environ["UNROLL_SCREENSHOTS"]) / name, full_page=True)
        page.close()
    assert errors == []
    assert [address for address in asks if not address.startswith(("file:", "data:"))] == []
