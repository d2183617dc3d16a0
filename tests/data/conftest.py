from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, and no time limit: on a busy machine the result must be the same
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
    """The folder of corpora, which other machines may not have."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the corpora in {SHARED}")
    return str(SHARED)
