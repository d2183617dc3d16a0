import gc
import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.config.schema import DataConfig
from src.data.corpus import CORPORA, REGISTRY, File, Named, errors_in_data, open_corpus
from src.errors import UserError

# urllib3 leaves the socket of a refused connection to the garbage collector, which `impatient` calls
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONF = Path(__file__).parents[2] / "conf" / "data"
TEXT = b"To be, or not to be, that is the question.\n" * 5000
SHA256 = hashlib.sha256(TEXT).hexdigest()
NOWHERE = "http://127.0.0.1:9/input.txt"  # the discard port: the connection is refused


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"name": "tiny_shakespear"}, "data=tiny_shakespear: there is no such corpus.*did you mean tiny_shakespeare"),
        ({"name": "text"}, "data=text needs a text: set data.path to a file, a folder or a glob"),
        ({"name": "pydoc", "root": "x"}, "data.root is not used by data=pydoc, only by tiny_shakespeare, .*enwik8"),
        ({"name": "pydoc", "split": [0.9, 0.2]}, r"data.split=\[0.9, 0.2\]: .* a sum of at most 1"),
        ({"name": "pydoc", "split": [0.9, 0.0]}, "above 0"),
        ({"name": "pydoc", "split": [0.25] * 4}, "one to three shares"),
        ({"name": "text", "path": "x", "val_path": "y", "split": [0.9, 0.1]}, "with data.val_path all of"),
        ({"name": "lines", "path": "x", "test_path": "y", "split": [0.8, 0.1, 0.1]}, "test_path.*give two shares"),
        ({"name": "hello", "input": "hell"}, "data.input=hell has 4 characters and data.target=ohlol has 5"),
        ({"name": "hello", "symbols": "ehl"}, "data.symbols=ehl lacks o"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, message):
    (error,) = errors_in_data(DataConfig(**keys))
    with pytest.raises(UserError, match=message):
        raise UserError(error)


def test_all_errors_are_reported_at_once_before_any_file_is_opened():
    with pytest.raises(UserError) as caught:
        open_corpus(DataConfig("text", split=[2.0], input="x", unknown="extend"))
    assert len(str(caught.value).splitlines()) == 4


class Answers(BaseHTTPRequestHandler):
    """A server that answers as the path says."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        content = self.server.zip if self.path == "/zip" else TEXT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = self.path == "/always_cut" or (self.path == "/cut_once" and len(self.server.asked) == 1)
        self.wfile.write(content[:100_000] if cut else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.address = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Do not wait between two tries of a download."""
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    yield
    gc.collect()


def publish(monkeypatch, address, sha256=SHA256, path="play/input.txt"):
    """Let data=time_machine be one file at this address."""
    monkeypatch.setitem(REGISTRY, path, File(path, sha256, address))
    monkeypatch.setitem(CORPORA, "time_machine", Named((path,), (0.9, 0.1)))


def open_it(root=None):
    return open_corpus(DataConfig("time_machine", root=None if root is None else str(root)))


def files_in(folder):
    return [place for place in folder.rglob("*") if place.is_file()]


def test_a_corpus_is_searched_in_the_root_then_in_the_cache_then_downloaded(server, monkeypatch, tmp_path, cache):
    publish(monkeypatch, f"{server.address}/good")
    root = tmp_path / "root"
    downloaded = open_it(root)
    cached = cache / "corpora" / "play" / "input.txt"
    assert downloaded.provenance["files"][0]["path"] == str(cached)
    again = open_it(root)
    assert len(server.asked) == 1
    (root / "play").mkdir(parents=True)
    cached.rename(root / "play" / "input.txt")
    moved = open_it(root)
    assert moved.provenance["files"][0]["path"] == str(root / "play" / "input.txt")
    assert downloaded.key == again.key == moved.key


def test_a_download_that_breaks_off_is_tried_again_and_one_that_always_does_leaves_nothing(server, monkeypatch, cache):
    publish(monkeypatch, f"{server.address}/cut_once")
    open_it()
    assert len(server.asked) == 2
    publish(monkeypatch, f"{server.address}/always_cut", path="play/other.txt")
    with pytest.raises(UserError, match="cannot be downloaded"):
        open_it()
    assert [place.name for place in files_in(cache / "corpora")] == ["input.txt"]


@pytest.mark.parametrize(("path", "reason"), [("missing", "404"), ("good", f"expected {'0' * 64} but got {SHA256}")])
def test_a_missing_file_and_another_checksum_are_refused_and_nothing_is_kept(server, monkeypatch, cache, path, reason):
    publish(monkeypatch, f"{server.address}/{path}", "0" * 64)
    with pytest.raises(UserError, match=reason):
        open_it()
    assert files_in(cache) == []


def test_without_a_network_two_lines_have_address_checksum_and_place(monkeypatch, tmp_path, cache):
    publish(monkeypatch, NOWHERE)
    with pytest.raises(UserError) as caught:
        open_it()
    place = cache / "corpora" / "play" / "input.txt"
    assert str(caught.value).splitlines() == [
        "data=time_machine cannot be downloaded (no connection)",
        f"download {NOWHERE} (sha256 {SHA256}) by hand and put it at {place}",
    ]
    with pytest.raises(UserError, match=f"put it at {tmp_path / 'mine' / 'play' / 'input.txt'}"):
        open_it(tmp_path / "mine")


def test_a_file_with_the_right_name_and_other_content_is_refused(monkeypatch, tmp_path):
    publish(monkeypatch, NOWHERE)
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "input.txt").write_bytes(TEXT + b"!")
    for _ in range(2):
        with pytest.raises(UserError, match=f"expected {SHA256}: another file, or a damaged one"):
            open_it(tmp_path)


def zipped(place, **members):
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return hashlib.sha256(place.read_bytes()).hexdigest()


def test_a_zip_is_checked_and_unpacked_once(server, monkeypatch, tmp_path, cache):
    own = tmp_path / "root" / "play" / "play.zip"
    sha256 = zipped(own, play=TEXT, other=b"x")
    publish(monkeypatch, f"{server.address}/zip", sha256, "play/play.zip")
    corpus = open_it(tmp_path / "root")
    assert sum(len(split) for split in corpus.splits.values()) == len(TEXT)
    assert files_in(cache / "corpora") == [cache / "corpora" / "play" / sha256[:16] / "play"]
    server.zip = own.read_bytes()
    own.unlink()
    assert open_it(tmp_path / "root").key == corpus.key
    assert server.asked == []
    (cache / "corpora" / "play" / sha256[:16] / "play").unlink()
    assert open_it().key == corpus.key
    assert server.asked == ["/zip"]
