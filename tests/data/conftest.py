from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, and no clock: a busy machine must not turn a claim red
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Each test has a cache folder of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UNROLL_CACHE", str(folder))
    return folder


@pytest.fixture
def shared():
    """The folder of corpora that every fresh machine may lack."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the corpora in {SHARED}")
    return str(SHARED)
