"""Evaluating and scoring: every transition once, the state carried, one number whichever way it is asked for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from src import load
from src.config.schema import EvaluationDataConfig
from src.data.batching import LineSplit, TextSplit, evaluation_windows
from src.errors import UserError
from src.inference.evaluate import evaluate, evaluate_run, keep
from src.models.gated import GRU
from src.models.language_model import LanguageModel
from tests.fabricated_run import MODELS, VERSE, fabricate

NAMES = "anna\nbob\ncarla\ndora\nemilio\nfrida\ngus\nhanna-maria\nida\njakob\n" * 3


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(GRU(5, 6, 2), 5).double().eval()


def by_hand(model: LanguageModel, ids: np.ndarray) -> np.ndarray:
    """-log p of every transition in one pass over the whole text, the slow truth."""
    inputs = torch.from_numpy(ids.astype(np.int64))[:, None]
    with torch.no_grad():
        log_p = torch.log_softmax(model(inputs[:-1])[0][:, 0], -1)
    return -log_p.gather(1, inputs[1:]).squeeze(1).numpy()


@pytest.mark.parametrize("seq_len", [1, 3, 64, 101, 1000])
def test_the_state_is_carried_from_the_first_character_to_the_last(model, seq_len):
    ids = np.random.default_rng(0).integers(0, 5, 101).astype(np.uint8)
    expected = by_hand(model, ids)
    found = evaluate(model, evaluation_windows(TextSplit("test", ids), seq_len))
    assert found["characters"] == 100
    assert found["cross_entropy"] * found["characters"] == pytest.approx(expected.sum(), abs=1e-10)
    by_position = [expected[place::seq_len].mean() for place in range(min(seq_len, 100))]
    np.testing.assert_allclose(found["loss_by_position"], by_position, atol=1e-10)


@pytest.mark.parametrize("side_by_side", [1, 7, 64])
@pytest.mark.parametrize("seq_len", [2, 5, 64])
def test_items_are_scored_from_a_zero_state_to_their_end_however_many_side_by_side(model, side_by_side, seq_len):
    generator = np.random.default_rng(0)
    items = [generator.integers(1, 5, length) for length in (3, 1, 8, 4, 5, 5, 2)]
    split = LineSplit("test", np.concatenate([[0], *(np.append(item, 0) for item in items)]).astype(np.uint8), 0)
    expected = sum(by_hand(model, np.concatenate(([0], item, [0]))).sum() for item in items)
    found = evaluate(model, evaluation_windows(split, seq_len, side_by_side))
    assert found["characters"] == sum(len(item) + 1 for item in items)
    assert found["cross_entropy"] * found["characters"] == pytest.approx(expected, abs=1e-10)


def test_accuracy_is_the_share_of_right_first_guesses(model):
    ids = np.random.default_rng(0).integers(0, 5, 50).astype(np.uint8)
    with torch.no_grad():
        guesses = model(torch.from_numpy(ids[:-1].astype(np.int64))[:, None])[0][:, 0].argmax(-1).numpy()
    found = evaluate(model, evaluation_windows(TextSplit("test", ids), 8))
    assert found["accuracy"] == pytest.approx((guesses == ids[1:]).mean())
    assert found["bits_per_character"] == pytest.approx(found["cross_entropy"] / math.log(2))
    assert found["perplexity"] == pytest.approx(math.exp(found["cross_entropy"]))


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_evaluated_on_each_of_its_splits_and_leaves_the_result_in_its_folder(tmp_path, name):
    folder = fabricate(tmp_path / "run", name, **{"data.split": [0.8, 0.1, 0.1]})
    trained = load(folder)
    sizes = {"train": int(len(VERSE) * 0.8), "val": int(len(VERSE) * 0.9) - int(len(VERSE) * 0.8)}
    for split, size in sizes.items():
        result = evaluate_run(trained, split)
        assert result["characters"] == size - 1
        assert keep(trained, result) == folder / f"evaluation_{split}.json"
        assert json.loads((folder / f"evaluation_{split}.json").read_text()) == result
    assert result["checkpoint"] == "best"
    assert result["baselines"].keys() >= {"uniform", "unigram", "ngram_5"}
    assert result["text"]["changed"] is False


@pytest.mark.parametrize("data", ["text", "lines"])
def test_neither_batch_size_nor_window_changes_the_number(tmp_path, data):
    trained = load(fabricate(tmp_path / "run", "manual", NAMES, data))
    results = [
        evaluate_run(trained, "val", EvaluationDataConfig(batch_size=batch_size, seq_len=seq_len))
        for batch_size, seq_len in ((1, 64), (7, 64), (64, 64), (7, 3))
    ]
    assert len({result["characters"] for result in results}) == 1
    numbers = [result["cross_entropy"] for result in results]
    assert max(numbers) - min(numbers) < 1e-6


def test_a_text_that_has_changed_is_evaluated_in_the_model_s_own_ids_and_told(tmp_path):
    folder = fabricate(tmp_path / "run")
    (folder / "text.txt").write_text(VERSE.replace("!", "") + VERSE)  # the same characters, fewer in the training split
    result = evaluate_run(trained := load(folder), "val")
    assert result["text"]["changed"] is True
    assert keep(trained, result) is None  # a report would take it for the run's own
    (folder / "text.txt").write_text(VERSE + "Ω" * 200)
    with pytest.raises(UserError, match=f"Ω.*leave them out of the text, or .*init_from={folder} data.unknown=extend"):
        evaluate_run(load(folder), "val")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_held_out_text_that_is_named_now_stands_in_for_its_share(tmp_path, split):
    folder = fabricate(tmp_path / "run", **{"data.split": [0.8, 0.1, 0.1]})
    (tmp_path / "other.txt").write_text(VERSE[:101])
    named = EvaluationDataConfig(**{f"{split}_path": str(tmp_path / "other.txt")})
    assert evaluate_run(load(folder), split, named)["characters"] == 100


VERSE_AND_MORE = VERSE + "é – ü " * 30


@pytest.mark.parametrize(
    ("data", "encoding", "text", "characters"),
    [
        ("text", "characters", VERSE_AND_MORE, len(VERSE_AND_MORE) - 1),
        ("text", "bytes", VERSE_AND_MORE, len(VERSE_AND_MORE.encode()) - 1),
        ("lines", "characters", NAMES, len(NAMES)),  # each name, and the line break that ends it
    ],
)
def test_scoring_a_split_s_text_gives_the_numbers_of_its_evaluation(tmp_path, data, encoding, text, characters):
    trained = load(fabricate(tmp_path / "run", "gru", text, data, **{"data.encoding": encoding, "data.split": [1.0]}))
    expected, score = evaluate_run(trained, "train"), trained.score(text)
    assert score.characters == expected["characters"] == characters
    for name in ("cross_entropy", "bits_per_character", "perplexity", "accuracy"):
        assert getattr(score, name) == pytest.approx(expected[name], abs=1e-6), name


def test_the_bits_are_those_of_each_character_in_order(tmp_path):
    trained = load(fabricate(tmp_path / "run"), precision="64-true")
    score = trained.score("every day")
    np.testing.assert_allclose(score.bits, by_hand(trained.model, trained.ids("every day")) / math.log(2), atol=1e-10)
    assert score.total == pytest.approx(sum(score.bits))
    assert [text for text, _ in score.readable()] == list("every day")
    assert next(score.readable()) == ("e", None)


def test_the_bytes_of_a_character_are_told_together(tmp_path):
    trained = load(fabricate(tmp_path / "run", "manual", "né " * 200, **{"data.encoding": "bytes"}))
    score = trained.score("né né")
    assert [text for text, _ in score.readable()] == list("né né")
    assert sum(bits or 0 for _, bits in score.readable()) == pytest.approx(score.total)
    assert len(score.bits) == 6


def test_the_result_of_a_checkpoint_that_was_carried_away_is_written_nowhere(tmp_path):
    folder = fabricate(tmp_path / "run")
    trained = load((folder / "checkpoints" / "best.ckpt").rename(tmp_path / "alone.ckpt"))
    assert keep(trained, evaluate_run(trained, "val")) is None
    assert not list(tmp_path.rglob("evaluation_*"))
