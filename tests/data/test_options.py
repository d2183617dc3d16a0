from pathlib import Path

import pytest
import yaml

from src.data.corpora import CORPORA
from src.data.corpus import open_corpus
from src.data.options import OWN, Options, check
from src.errors import DataError

CONF = Path(__file__).parents[2] / "conf" / "data"
WINDOWS = {"seq_len", "batch_size", "offset", "reset", "evaluation_streams"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "tiny_shakespear"}, "data=tiny_shakespear: there is no such corpus.*did you mean tiny_shakespeare"),
        ({"name": "text"}, "data=text needs a text: data.path= a file, a folder or a glob"),
        ({"name": "lines"}, "data=lines needs a text"),
        ({"name": "names", "path": "x"}, "data.path is for data=text and data=lines; data=names knows its text"),
        ({"name": "pydoc", "root": "x"}, "data.root is for corpora with an address .*not for data=pydoc"),
        (
            {"name": "pydoc", "encoding": "byte"},
            "data.encoding=byte: it must be one of characters, bytes; did you mean bytes",
        ),
        ({"name": "pydoc", "errors": "ignore"}, "data.errors=ignore: it must be one of strict, replace"),
        ({"name": "pydoc", "unknown": "skip"}, "data.unknown=skip: it must be one of null, error, map, extend"),
        ({"name": "ptb", "convention": "mine"}, "data.convention=mine: it must be one of stripped, raw"),
        ({"name": "ptb", "split": [0.9, 0.1]}, "data=ptb is not cut by shares"),
        ({"name": "pydoc", "split": [0.9, 0.2]}, r"data.split=\[0.9, 0.2\]: .* add up to at most 1"),
        ({"name": "pydoc", "split": [0.9, 0.0]}, "above 0"),
        ({"name": "pydoc", "split": []}, "one to three shares"),
        ({"name": "pydoc", "split": [0.25] * 4}, "one to three shares"),
        ({"name": "pydoc", "split": ["a", "b"]}, "it must be shares such as"),
        ({"name": "pydoc", "input": "x"}, "data.input is for data=hello; data=pydoc reads a text"),
        ({"name": "text", "path": "x", "val_path": "y", "split": [0.9, 0.1]}, "with data.val_path all of"),
        ({"name": "lines", "path": "x", "test_path": "y", "split": [0.8, 0.1, 0.1]}, "test_path; give two shares"),
        ({"name": "lines", "path": "x", "split_seed": -1}, "data.split_seed=-1: .* of 0 or more"),
        ({"name": "pydoc", "separator": "\udcff"}, r"data.separator='\\udcff' has a lone .*data.encoding=bytes takes"),
        ({"name": "pydoc", "separator": "\ud800", "encoding": "bytes"}, "which is no character; leave it out"),
        ({"name": "hello", "input": "hell"}, "data.input=hell has 4 characters and data.target=ohlol has 5"),
        ({"name": "hello", "symbols": "ehl"}, "data.symbols=ehl lacks o"),
        ({"name": "hello", "symbols": "ehloe"}, "each symbol may stand there once"),
        ({"name": "pydoc", "seperator": ""}, "data.seperator is no option of a corpus; did you mean separator"),
        ({"name": "pydoc", "seq_len": 0}, "data.seq_len=0: it must be a whole number of 1 or more"),
        ({"name": "pydoc", "batch_size": True}, "data.batch_size=True: it must be a whole number"),
        ({"name": "pydoc", "offset": "randm"}, "data.offset=randm: .*did you mean random"),
    ],
)
def test_a_mistake_in_the_options_is_told_with_what_is_allowed(options, message):
    (only,) = check(**options)
    with pytest.raises(DataError, match=message):
        raise DataError(only)


def test_all_mistakes_are_told_at_once_before_any_file_is_opened():
    wrong = {"name": "text", "encoding": "latin", "errors": "none", "split": [2]}
    assert len(check(**wrong)) == 4
    with pytest.raises(DataError) as caught:
        open_corpus(**wrong)
    assert len(str(caught.value).splitlines()) == 4


def test_there_is_a_file_in_conf_for_each_corpus_and_no_other():
    assert {place.stem for place in CONF.glob("*.yaml")} == {*OWN, *CORPORA}


@pytest.mark.parametrize("place", sorted(CONF.glob("*.yaml")), ids=lambda place: place.stem)
def test_a_data_config_has_known_keys_right_values_and_a_reason_for_each(place):
    text = place.read_text()
    assert text.startswith("# @package _global_\n# ")
    options = yaml.safe_load(text)["data"]
    assert options["name"] == place.stem
    assert set(options) <= {*Options.__dataclass_fields__, *WINDOWS}
    if place.stem in ("text", "lines"):
        options["path"] = "x"
    assert check(**options) == []
    ours = text.partition("\ncallbacks:")[0]  # of callbacks switched off together one reason is enough
    keys = [line for line in ours.splitlines() if line.startswith("  ") and not line.rstrip().endswith(":")]
    assert all("  # " in line for line in keys if not line.startswith("  name:"))


@pytest.mark.parametrize("name", ["tiny_shakespeare", "time_machine", "war_and_peace", "names", "pydoc", "hello"])
def test_the_corpora_at_hand_open_with_the_options_of_their_config(name, shared):
    options = yaml.safe_load((CONF / f"{name}.yaml").read_text())["data"]
    if "root" in options:
        options["root"] = shared
    corpus = open_corpus(**options)
    assert corpus.name == name
    assert len(corpus.vocabulary) == {
        "tiny_shakespeare": 65,
        "time_machine": 70,
        "war_and_peace": 87,
        "names": 27,
        "hello": 4,
    }.get(name, len(corpus.vocabulary))
