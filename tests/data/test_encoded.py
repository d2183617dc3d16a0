import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from src.config.schema import DataConfig
from src.data import text_reader
from src.data.corpus import open_corpus
from src.errors import UserError

ROOT = Path(__file__).parents[2]

OPEN = """
import hashlib, sys
from src.config.schema import DataConfig
from src.data.corpus import open_corpus
corpus = open_corpus(DataConfig("text", path=sys.argv[1], encoding=sys.argv[2]))
status = dict(line.split(":") for line in open("/proc/self/status"))
peak = status["VmHWM"].split()[0]  # KiB so far; ru_maxrss would remember the process that forked
print(hashlib.sha256(corpus.splits["train"].ids.tobytes()).hexdigest(), peak)
"""


@pytest.fixture
def text(tmp_path):
    place = tmp_path / "text.txt"
    place.write_text("the quick brown fox jumps over the lazy dog\n" * 2000)
    return place


def age(place):
    """Make a file look as if it had been there for a while: only such files are remembered."""
    os.utime(place, ns=(0, time.time_ns() - 10**10))


def files(cache):
    """All that encoding has left, whole or not."""
    return sorted(place for place in (Path(cache) / "encoded").rglob("*") if place.is_file() and place.name != "lock")


def test_a_text_is_read_once_and_then_found_by_its_path_size_and_time(text, cache, monkeypatch):
    age(text)
    first = open_corpus(DataConfig("text", path=str(text)))
    monkeypatch.setattr("src.data.corpus._encode", lambda *_: pytest.fail("read again"))
    again = open_corpus(DataConfig("text", path=str(text)))
    np.testing.assert_array_equal(first.splits["val"].ids, again.splits["val"].ids)
    assert again.vocabulary == first.vocabulary
    assert again.provenance == first.provenance


def test_a_text_put_in_another_s_place_with_its_size_and_time_is_read_again(text):
    age(text)
    before = open_corpus(DataConfig("text", path=str(text))).key
    time = text.stat().st_mtime_ns
    other = text.with_name("other.txt")
    other.write_text(text.read_text().replace("fox", "cat"))
    os.utime(other, ns=(0, time))
    os.replace(other, text)
    assert text.stat().st_mtime_ns == time
    assert open_corpus(DataConfig("text", path=str(text))).key != before


@pytest.mark.parametrize("harm", [lambda content: content[:-100], lambda content: content + b"x", lambda content: b""])
def test_an_entry_that_something_else_has_written_to_is_not_trusted_but_made_again(text, cache, harm):
    good = open_corpus(DataConfig("text", path=str(text))).splits["train"].ids.copy()
    (entry,) = files(cache)
    content = entry.read_bytes()
    entry.write_bytes(harm(content))
    np.testing.assert_array_equal(open_corpus(DataConfig("text", path=str(text))).splits["train"].ids, good)
    assert entry.read_bytes() == content


@pytest.mark.parametrize("place", [5, -100, -10])  # an id, the facts, the mark
def test_a_flipped_byte_in_the_cache_is_noticed_and_the_text_is_encoded_again(text, cache, caplog, place):
    age(text)
    good = open_corpus(DataConfig("text", path=str(text))).splits["train"].ids.copy()
    (entry,) = files(cache)
    content = bytearray(entry.read_bytes())
    content[place] ^= 1
    entry.write_bytes(content)
    np.testing.assert_array_equal(open_corpus(DataConfig("text", path=str(text))).splits["train"].ids, good)
    assert [str(entry) in message for message in caplog.messages] == ([True] if place != -10 else [])
    (remembered,) = (cache / "remembered").iterdir()
    remembered.write_text(remembered.read_text().replace("1", "2"))
    assert open_corpus(DataConfig("text", path=str(text))).provenance["sha256"] == sha256(text.read_bytes()).hexdigest()


def test_a_pipe_in_place_of_a_text_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"data.path=.*pipe: it is a pipe or a device.*copy it into a file"):
        open_corpus(DataConfig("text", path=str(tmp_path / "pipe")))


def test_processes_that_start_together_write_one_sound_entry(text, cache):
    slow = """
import time
from src.data import corpus, text_reader
original = text_reader.write_ids
def slow(*arguments):
    print("encodes")
    time.sleep(0.5)
    return original(*arguments)
text_reader.write_ids = slow
"""
    command = [sys.executable, "-c", slow + OPEN, str(text), "characters"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    answers = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len({answer[-2] for answer in answers}) == 1
    assert sum("encodes" in answer for answer in answers) == 1  # the others waited for it
    assert len(files(cache)) == 1


def test_an_encoder_that_is_killed_leaves_no_entry_and_the_next_one_cleans_up(text, cache):
    code = """
import sys, time
from src.data import corpus, text_reader
original = text_reader.write_ids
def slow(stream, pieces, vocabulary):
    original(stream, pieces, vocabulary)
    stream.flush()
    print("half-way", flush=True)
    time.sleep(60)
text_reader.write_ids = slow
from src.config.schema import DataConfig
corpus.open_corpus(DataConfig("text", path=sys.argv[1]))
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(text)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "half-way\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert [place.name.startswith(".") for place in files(cache)] == [True]
    assert len(open_corpus(DataConfig("text", path=str(text))).splits["train"]) == 79_200  # and nothing is locked
    assert [place.suffix for place in files(cache)] == [".ids"]


def test_a_cache_folder_that_cannot_be_written_is_refused_with_the_remedy(text, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("UNROLL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot be written.*set UNROLL_CACHE to another folder"):
        open_corpus(DataConfig("text", path=str(text)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.parametrize("encoding", ["characters", "bytes"])
def test_memory_does_not_grow_with_the_text(tmp_path, encoding):
    used = []
    for megabytes in (2, 40):
        place = tmp_path / f"{megabytes}.txt"
        place.write_bytes(("naïve façade, 你好\n".encode() * 50_000)[:999_990] * megabytes)
        place.write_bytes(place.read_bytes().decode("utf-8", "ignore").encode())
        answer = subprocess.run(
            [sys.executable, "-c", OPEN, str(place), encoding], capture_output=True, text=True, check=True, cwd=ROOT
        )
        used.append(int(answer.stdout.split()[1]) / 1024)
    assert used[1] - used[0] < 20  # MiB, for 38 MB more text


@pytest.mark.parametrize("encoding", ["characters", "bytes"])
def test_a_text_rewritten_at_its_size_between_two_readings_is_noticed_and_not_kept(text, cache, monkeypatch, encoding):
    original, content = text_reader.write_ids, text.read_text()

    def rewrite(*arguments):
        new, stat = text.with_name("new.txt"), text.stat()
        new.write_text(content.replace("fox", "f0x"))  # a character that the vocabulary lacks
        os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(new, text)
        return original(*arguments)

    monkeypatch.setattr("src.data.text_reader.write_ids", rewrite)
    with pytest.raises(ValueError, match="changed while it was read"):
        open_corpus(DataConfig("text", path=str(text), encoding=encoding))
    assert files(cache) == []
    monkeypatch.setattr("src.data.text_reader.write_ids", original)
    text.write_text(content)
    corpus = open_corpus(DataConfig("text", path=str(text), encoding=encoding))
    assert corpus.vocabulary.decode(corpus.splits["train"].ids).startswith("the quick brown fox")
