from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Each test has a cache folder of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UNROLL_CACHE", str(folder))
    return folder


@pytest.fixture
def shared():
    """The folder of corpora, which other machines may not have."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the corpora in {SHARED}")
    return str(SHARED)
