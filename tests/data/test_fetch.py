import hashlib
import io
import os
import socket
import threading
import time
import urllib.error
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from src.data import corpora as fetch
from src.data import corpora as named
from src.data.corpora import FetchError, File, Named, unpack
from src.data.corpus import open_corpus
from src.errors import DataError

TEXT = b"To be, or not to be, that is the question.\n" * 5000
SHA256 = hashlib.sha256(TEXT).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """A server that is well, or ill in the way the path says."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        kind, times = self.path.strip("/"), len(self.server.asked)
        if kind == "missing" or (kind == "busy" and times < 3):
            self.send_error(404 if kind == "missing" else 503)
            return
        content = self.server.zip if kind == "zip" else TEXT
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0]) if "resumes" in kind else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(TEXT) - 1}/{len(TEXT)}")
        self.send_header("Content-Length", "many" if kind == "odd_length" else str(len(content) - start))
        self.end_headers()
        if kind == "zip":
            self.wfile.write(content)
            return
        cut = (kind == "always_cut") or (kind.startswith("cut_once") and times == 1)
        self.wfile.write(TEXT[start : start + 100_000] if cut else TEXT[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "WAIT", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.address = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()
        thread.join()


def nothing_in(folder):
    return not [place for place in folder.rglob("*") if place.is_file()]


def test_a_file_comes_whole_and_checked(server, tmp_path, capsys):
    place = fetch.fetch(f"{server.address}/good", tmp_path / "in" / "text.txt", SHA256)
    assert place.read_bytes() == TEXT
    assert capsys.readouterr().err == "fetching text.txt of 0.2 MB\n"


def test_a_length_that_is_no_number_is_no_length(server, tmp_path):
    assert fetch.fetch(f"{server.address}/odd_length", tmp_path / "text.txt", SHA256).read_bytes() == TEXT


def test_a_wrong_checksum_ends_it_at_once_and_nothing_is_kept(server, tmp_path):
    with pytest.raises(FetchError, match=f"has sha256 {SHA256}, expected 0000.*nothing was kept"):
        fetch.fetch(f"{server.address}/good", tmp_path / "text.txt", "0" * 64)
    assert nothing_in(tmp_path)
    assert len(server.asked) == 1


def test_a_connection_cut_in_the_middle_is_taken_up_where_it_broke(server, tmp_path):
    place = fetch.fetch(f"{server.address}/cut_once_resumes", tmp_path / "text.txt", SHA256)
    assert place.read_bytes() == TEXT
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-"]


def test_a_server_that_cannot_resume_is_asked_from_the_start(server, tmp_path):
    assert fetch.fetch(f"{server.address}/cut_once", tmp_path / "text.txt", SHA256).read_bytes() == TEXT
    assert len(server.asked) == 2


def test_a_connection_that_is_always_cut_gives_up_and_leaves_nothing(server, tmp_path):
    with pytest.raises(FetchError, match=r"always_cut cannot be fetched .*tried 4 times"):
        fetch.fetch(f"{server.address}/always_cut", tmp_path / "text.txt", SHA256)
    assert nothing_in(tmp_path)
    assert len(server.asked) == 4


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    assert fetch.fetch(f"{server.address}/busy", tmp_path / "text.txt", SHA256).read_bytes() == TEXT
    server.asked.clear()
    with pytest.raises(FetchError, match="/missing answers 404"):
        fetch.fetch(f"{server.address}/missing", tmp_path / "other.txt", SHA256)
    assert len(server.asked) == 1


def one_file(monkeypatch, address, sha256=SHA256, member=None, place="play/input.txt"):
    monkeypatch.setitem(named.CORPORA, "time_machine", Named((File(place, address, sha256, member),), (0.9, 0.1)))


def test_a_server_that_is_down_is_told_with_address_checksum_and_place(monkeypatch, tmp_path, cache):
    monkeypatch.setattr(fetch, "WAIT", 0.01)
    one_file(monkeypatch, "http://127.0.0.1:9/input.txt")
    with pytest.raises(DataError) as caught:
        open_corpus(name="time_machine")
    message = str(caught.value)
    assert len(message.splitlines()) == 2
    assert message.startswith("time_machine is not here: ")
    for part in ("http://127.0.0.1:9/input.txt", "refused", SHA256, str(cache / "corpora" / "play" / "input.txt")):
        assert part in message
    with pytest.raises(DataError, match=f"put it at {tmp_path / 'mine' / 'play' / 'input.txt'}"):
        open_corpus(name="time_machine", root=str(tmp_path / "mine"))
    assert nothing_in(tmp_path)


def test_of_several_files_each_that_is_missing_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "WAIT", 0.01)
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "ptb.valid.txt").write_bytes(b" here \n")
    files = tuple(
        File(f"ptb/ptb.{part}.txt", f"http://127.0.0.1:9/{part}", SHA256) for part in ("train", "valid", "test")
    )
    monkeypatch.setitem(named.CORPORA, "ptb", Named(files, None))
    with pytest.raises(DataError) as caught:
        open_corpus(name="ptb", root=str(tmp_path))
    assert [line.split(" by hand")[0] for line in str(caught.value).splitlines()[1:]] == [
        f"fetch http://127.0.0.1:9/{part} (sha256 {SHA256})" for part in ("train", "test")
    ]


def test_a_name_that_no_one_knows_is_asked_for_once(monkeypatch, tmp_path):
    def unknown(*_, **__):
        raise urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))

    monkeypatch.setattr(fetch.urllib.request, "urlopen", unknown)
    monkeypatch.setattr(fetch.time, "sleep", lambda _: pytest.fail("tried again"))
    with pytest.raises(FetchError, match=r"cannot be fetched \(.*Name or service not known\)$"):
        fetch.fetch("http://nowhere.invalid/x", tmp_path / "x", SHA256)
    assert nothing_in(tmp_path)


def test_a_corpus_is_looked_for_in_the_root_then_in_the_cache_then_fetched(server, monkeypatch, tmp_path, cache):
    one_file(monkeypatch, f"{server.address}/good")
    root = tmp_path / "root"
    fetched = open_corpus(name="time_machine", root=str(root))
    kept = cache / "corpora" / "play" / "input.txt"
    assert fetched.provenance["files"][0]["path"] == str(kept)
    again = open_corpus(name="time_machine", root=str(root))
    assert len(server.asked) == 1
    (root / "play").mkdir(parents=True)
    kept.rename(root / "play" / "input.txt")
    moved = open_corpus(name="time_machine", root=str(root))
    assert moved.provenance["files"][0]["path"] == str(root / "play" / "input.txt")
    assert fetched.key == again.key == moved.key


def test_a_file_of_the_right_name_and_the_wrong_content_is_refused(monkeypatch, tmp_path):
    one_file(monkeypatch, "http://127.0.0.1:9/input.txt")
    (tmp_path / "play").mkdir()
    (tmp_path / "play" / "input.txt").write_bytes(TEXT + b"!")
    for _ in range(2):
        with pytest.raises(DataError, match=f"expected {SHA256}: another file, or a damaged one"):
            open_corpus(name="time_machine", root=str(tmp_path))


def zipped(place, **members):
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return hashlib.sha256(place.read_bytes()).hexdigest()


def test_a_zipped_corpus_is_checked_unpacked_once_and_read(monkeypatch, tmp_path, cache):
    (tmp_path / "play").mkdir()
    sha256 = zipped(tmp_path / "play" / "play.zip", play=TEXT)
    one_file(monkeypatch, "http://127.0.0.1:9/play.zip", sha256, "play", "play/play.zip")
    corpus = open_corpus(name="time_machine", root=str(tmp_path))
    assert sum(len(split) for split in corpus.splits.values()) == len(TEXT)
    (tmp_path / "play" / "play.zip").unlink()
    assert open_corpus(name="time_machine", root=str(tmp_path)).key == corpus.key
    (tmp_path / "play" / "play.zip").write_bytes(b"PK")
    one_file(monkeypatch, "http://127.0.0.1:9/play.zip", "0" * 64, "play", "play/play.zip")
    with pytest.raises(DataError, match="expected 0000"):
        open_corpus(name="time_machine", root=str(tmp_path))


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "..\\escaped", "C:escaped"])
def test_a_zip_whose_path_climbs_out_of_its_folder_unpacks_nothing(tmp_path, name):
    zipped(tmp_path / "bad.zip", **{name: b"x", "play": TEXT})
    with pytest.raises(FetchError, match="climbs out of its folder; nothing was unpacked"):
        unpack(tmp_path / "bad.zip", "play", tmp_path / "in" / "play")
    assert [place.name for place in tmp_path.rglob("*") if place.is_file()] == ["bad.zip"]


def test_a_zip_that_climbs_is_removed_where_it_was_fetched_and_else_named(server, monkeypatch, tmp_path, cache):
    (tmp_path / "root" / "play").mkdir(parents=True)
    own = tmp_path / "root" / "play" / "play.zip"
    sha256 = zipped(own, **{"../escaped": b"x", "play": TEXT})
    server.zip = own.read_bytes()
    one_file(monkeypatch, f"{server.address}/zip", sha256, "play", "play/play.zip")
    with pytest.raises(DataError, match=f"climbs out of its folder; .*to have it fetched again, delete {own}"):
        open_corpus(name="time_machine", root=str(tmp_path / "root"))
    assert own.exists()
    with pytest.raises(DataError, match="climbs out of its folder"):
        open_corpus(name="time_machine")
    assert nothing_in(cache)


def test_an_unpacked_corpus_is_held_to_its_checksum_and_data_root_comes_first(server, monkeypatch, tmp_path, cache):
    sha256 = zipped(tmp_path / "play.zip", play=TEXT)
    server.zip = (tmp_path / "play.zip").read_bytes()
    one_file(monkeypatch, f"{server.address}/zip", sha256, "play", "play/play.zip")
    corpus = open_corpus(name="time_machine")
    (unpacked,) = (place for place in (cache / "corpora").rglob("play") if place.is_file())
    unpacked.write_bytes(TEXT.replace(b"question", b"answer!!"))
    with pytest.raises(DataError, match=f"expected {SHA256}: another file, or a damaged one; delete it"):
        open_corpus(name="time_machine")
    unpacked.unlink()
    assert open_corpus(name="time_machine").key == corpus.key
    (tmp_path / "root" / "play").mkdir(parents=True)
    (tmp_path / "root" / "play" / "play.zip").write_bytes(b"another file")
    with pytest.raises(DataError, match=r"play\.zip has sha256"):
        open_corpus(name="time_machine", root=str(tmp_path / "root"))
    assert len(server.asked) == 1


def test_without_nameless_files_what_a_killed_process_left_is_swept_up(server, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    old, young = tmp_path / ".text.txt.a.part", tmp_path / ".text.txt.b.part"
    old.touch()
    young.touch()
    os.utime(old, (0, time.time() - 7200))
    fetch.fetch(f"{server.address}/good", tmp_path / "text.txt", SHA256)
    assert sorted(place.name for place in tmp_path.iterdir()) == [young.name, "text.txt"]


def test_a_damaged_zip_and_a_missing_member_are_told_and_leave_nothing(tmp_path):
    zipped(tmp_path / "good.zip", play=TEXT)
    content = bytearray((tmp_path / "good.zip").read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(content)
    (tmp_path / "short.zip").write_bytes(content[:100])
    for archive in ("bad.zip", "short.zip"):
        with pytest.raises(FetchError, match="is no sound zip"):
            unpack(tmp_path / archive, "play", tmp_path / "in" / "play")
    with pytest.raises(FetchError, match="has no file 'novel'; it has play"):
        unpack(tmp_path / "good.zip", "novel", tmp_path / "in" / "novel")
    assert nothing_in(tmp_path / "in") or not (tmp_path / "in").exists()


def test_a_terminal_gets_a_bar_that_ends_with_a_newline(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stderr", screen := Terminal())
    show = fetch.bar("text8.zip")
    show(0, 1_000_000)
    show(1_000_000, 1_000_000)
    lines = screen.getvalue().split("\r")[1:]
    assert lines[-1] == f"fetching text8.zip [{'#' * 30}] 1.0 of 1.0 MB\n"
