import gzip
import itertools
import zipfile
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.config.schema import DataConfig
from src.data import text_reader
from src.data.text_reader import Source, codes_in, find, pieces, read_text, scan
from src.errors import UserError


def read(*contents, counts=None, block=None, name="text", **rules):
    """The symbols of texts in memory as one str (characters) or bytes, read `block` bytes at a time."""
    sources = [Source(f"file{index}", content=content) for index, content in enumerate(contents)]
    with pytest.MonkeyPatch.context() as given:
        given.setattr(text_reader, "BLOCK", block or text_reader.BLOCK)
        parts = list(pieces(sources, DataConfig(name, **rules), counts))
    if rules.get("encoding") == "bytes":
        return b"".join(parts)
    return "".join(one.decode("ascii") if isinstance(one, bytes) else "".join(map(chr, one.tolist())) for one in parts)


def slow_rules(content, lowercase, errors):
    """The stated rules, all at once and one after the other: what the piecewise reading must equal."""
    text = content.decode("utf-8-sig", errors).replace("\r\n", "\n")
    if errors == "replace":
        text = text.replace("\0", "\ufffd")
    return "".join(lower if len(lower := c.lower()) == 1 else c for c in text) if lowercase else text


@given(
    st.text(st.sampled_from("aZ\r\n \u00e9\u0130\u03a3\u4f60\U0001f600\ufeff"), max_size=40),
    st.booleans(),
    st.integers(1, 9),
)
def test_reading_in_pieces_of_any_size_is_reading_at_once(text, lowercase, block):
    content = text.encode()
    assert read(content, block=block, lowercase=lowercase) == slow_rules(content, lowercase, "strict")


@given(st.binary(max_size=40), st.integers(1, 9))
def test_replacing_what_is_invalid_does_not_depend_on_the_pieces_either(content, block):
    whole = content.decode("utf-8", "replace")
    pieced = read(content, block=block, errors="replace")
    assert pieced == slow_rules(content, False, "replace")
    assert ("\ufffd" in pieced) == ("\ufffd" in whole or "\0" in whole)


@given(st.binary(max_size=40), st.integers(1, 9))
def test_bytes_stay_as_they_are(content, block):
    assert read(content, block=block, encoding="bytes") == content


@given(st.text(st.sampled_from("ab\n\u00e9\u4f60"), max_size=60), st.integers(1, 9))
def test_first_occurrences_are_where_str_find_finds_them(text, block):
    with pytest.MonkeyPatch.context() as given:
        given.setattr(text_reader, "BLOCK", block)
        found = scan([Source("t", content=text.encode())], DataConfig("text"))
    assert found.first == {ord(c): text.find(c) for c in set(text)}
    assert found.length == len(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab\xffcd", r"invalid UTF-8 \(0xff\) at byte 2"),
        (b"ab" * 600_000 + b"\xff", r"invalid UTF-8 \(0xff\) at byte 1,200,000"),
        (b"caf\xc3", r"invalid UTF-8 \(0xc3\) at byte 3"),
        (b"abcdef\0", "a NUL byte at byte 6"),
    ],
)
def test_what_is_no_text_is_told_with_its_byte_and_both_ways_out(content, message):
    with pytest.raises(UserError, match=f"file0: {message}.*data.errors=replace.*data.encoding=bytes"):
        read(content)


ACCENTS = "Le caf\u00e9 \u00e9tait ferm\u00e9 \u00e0 midi ; l\u2019\u00e9t\u00e9 finissait. " * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hi".encode("utf-16"), "a text in UTF-16.*data.codec=utf-16"),
        ("hi".encode("utf-32"), "a text in UTF-32.*data.codec=utf-32"),
        (b"%PDF-1.7\n%\xe2", "a PDF.*pdftotext"),
        (b"\xd0\xcf\x11\xe0\xa1", "an old Word.*plain text"),
        (gzip.compress(b"a", mtime=0), "packed.*unpack it"),  # in a pipe or a zip; a file of its own is read
        (b"\x89PNG\r\n", "a picture"),
        (b"a.txt".ljust(257, b"\0") + b"ustar", "a tar archive.*tar xf"),
        (ACCENTS.encode("cp1252"), r"data.codec=cp1252 reads 'Le caf\u00e9 .*there, data.errors=replace"),
        (("\u5c06\u8fdb\u9152 a\n" * 9).encode("gb18030"), "data.codec=gb18030 reads '\u5c06\u8fdb\u9152 a"),
        ("hello there\n".encode("utf-16-le"), "data.codec=utf-16-le reads 'hello"),
    ],
)
def test_a_file_that_is_no_plain_text_in_utf_8_is_named_with_the_way_out(content, message):
    with pytest.raises(UserError, match=f"file0.*{message}"):
        read(content)
    if not content.startswith(b"a.txt"):
        read(content, errors="replace")  # as the user asked
    assert read(content, encoding="bytes") == content


@pytest.mark.parametrize("codec", ["cp1252", "utf-16", "utf-16-be", "utf-32", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("block", [1, 3, None])
def test_a_text_in_another_codec_reads_as_the_same_text(codec, block):
    text = ACCENTS + "\r\nend"
    assert read(text.encode(codec), codec=codec, block=block) == text.replace("\r\n", "\n")


def test_a_byte_that_a_codec_lacks_is_named_with_its_place_and_replaced_where_asked():
    with pytest.raises(UserError, match=r"file0: byte 5 \(0x81\) is not in data.codec=cp1252"):
        read(b"abcde\x81f", codec="cp1252", block=2)
    with pytest.raises(UserError, match=r"file0: it is not in data.codec=utf-16 .*BOM"):
        read("hi".encode("utf-16-le"), codec="utf-16", errors="replace")
    counts = Counter()
    assert read(b"a\x81b", codec="cp1252", errors="replace", counts=counts) == "a\ufffdb"
    assert counts["invalid"] == 1


def test_gzip_and_zip_files_are_the_texts_in_them_and_documents_are_named(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one") + gzip.compress(b" two"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name in ("2.txt", "part/1.txt", "__MACOSX/._2.txt", ".hidden"):
            archive.writestr(name, f"in {name}")
    (tmp_path / "c.txt").write_bytes(b"three")
    config = DataConfig("text", separator="|")
    texts = b"".join(map(bytes, map(codes_in, pieces(find(str(tmp_path)), config)))).replace(b"\0", b"")
    assert texts == b"one two|in 2.txt|in part/1.txt|three"
    assert [source.name for source in find(str(tmp_path / "b.zip"))] == [
        str(tmp_path / "b.zip/2.txt"), str(tmp_path / "b.zip/part/1.txt")]  # fmt: skip
    assert [source.packed for source in find(str(tmp_path), unpack=False)] == [None] * 3  # encoding=bytes: as they are
    for member, what in (("[Content_Types].xml", "a document of Word"), ("mimetype", "an e-book")):
        with zipfile.ZipFile(tmp_path / "x", "w") as archive:
            archive.writestr(member, "application/epub+zip")
        with pytest.raises(UserError, match=f"x is {what}.*plain text"):
            find(str(tmp_path / "x"))
    # in the entry of a file: the mark of a password; method 9, Deflate64, of Windows for large files
    for offset, mark, why in ((8, 1, "has a password"), (10, 9, "is packed in a way that Python cannot read")):
        changed = bytearray((tmp_path / "b.zip").read_bytes())
        changed[changed.index(b"PK\1\2") + offset] = mark
        (tmp_path / "x").write_bytes(changed)
        with pytest.raises(UserError, match=f"x {why}; unpack it"):
            find(str(tmp_path / "x"))
    for name, content in (("x", b"PK\3\4 broken"), ("y", gzip.compress(b"a" * 99)[:-9])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_text(*find(str(tmp_path / name)), config)


def test_a_trained_model_reads_utf_8_and_else_the_codec_of_its_text():
    for codec, errors in itertools.product(("utf-8", "cp1252"), ("strict", "replace")):
        config = DataConfig("text", codec="cp1252", errors=errors)
        assert read_text(Source("letter", content=ACCENTS.replace("\n", "\r\n").encode(codec)), config) == ACCENTS
    with pytest.raises(UserError, match=r"a PDF.*the model reads texts as in training"):
        read_text(Source("prompt", content=b"%PDF-1.4"), DataConfig("text"))


def test_files_are_joined_by_the_separator_and_never_inside_a_character():
    assert read(b"one", "zw\u00f6lf".encode(), separator="\u00a7") == "one\u00a7zw\u00f6lf"
    assert read(b"one", b"two", separator="") == "onetwo"
    assert read(b"a\xc3", b"\xa9b", encoding="bytes", separator="|") == b"a\xc3|\xa9b"
    assert read(b"a", b"b", encoding="bytes", separator="\udcff") == b"a\xffb"  # a lone byte of a command line
    with pytest.raises(UserError, match="file0: invalid UTF-8"):
        read(b"a\xc3", b"\xa9b", separator="")


def test_one_leading_blank_a_line_is_dropped_where_asked():
    content = b" no it was n't \n  two blanks \n\n no <unk> \n"
    for block in range(1, 12):
        assert read(content, name="ptb", block=block) == "no it was n't \n two blanks \n\nno <unk> \n"
        in_bytes, counts = {"name": "ptb", "encoding": "bytes", "block": block}, Counter()
        assert read(content, counts=counts, **in_bytes) == b"no it was n't \n two blanks \n\nno <unk> \n"
        assert counts["leading_blanks"] == 3


def test_a_folder_is_all_its_files_in_order_and_a_glob_those_that_match(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", ".hidden", ".git/config", "d.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    names = [source.path.relative_to(tmp_path).as_posix() for source in find(str(tmp_path))]
    assert names == ["a.txt", "b.txt", "d.md", "sub/c.txt"]
    assert [source.path.name for source in find(str(tmp_path / "*.txt"))] == ["a.txt", "b.txt"]
    assert [source.path.name for source in find(str(tmp_path / "**/*.txt"))] == ["a.txt", "b.txt", "c.txt"]
    (tmp_path / "odd[1]*.txt").write_text("a name that looks like a glob")
    assert [source.path.name for source in find(str(tmp_path / "odd[1]*.txt"))] == ["odd[1]*.txt"]


def test_a_path_without_files_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data.path=no.txt: there is no such file.*relative paths start at .*"):
        find("no.txt")
    with pytest.raises(UserError, match="the folder has no files"):
        find(".")
    with pytest.raises(UserError, match=r"data.path=https://x.org/a.txt is an address.*curl"):
        find("https://x.org/a.txt")
    with pytest.raises(UserError, match=r"data.val_path=\*.md"):
        find("*.md", "val_path")


def test_every_character_is_lowered_as_python_lowers_it_alone():
    text = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x11000)]))
    assert read(text.encode(), lowercase=True) == slow_rules(text.encode(), True, "strict")
