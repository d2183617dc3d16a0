"""Sampling by a trained model: equal seeds, equal texts; a batch is its members; probabilities are the model's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src import load
from src.config.schema import SamplingConfig
from src.errors import UserError
from src.inference.generate import generate, read_prompt
from src.inference.load import TrainedModel
from tests.fabricated_run import MODELS, fabricate


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return load(fabricate(tmp_path_factory.mktemp("runs") / "run", request.param), precision="64-true")


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return load(fabricate(tmp_path_factory.mktemp("runs") / "run", "manual"))


def test_a_batch_samples_what_its_members_sample_one_by_one(trained):
    words = {"length": 60, "temperature": 0.9, "top_k": 9, "top_p": 0.95}
    together = trained.sample("day", num_samples=9, seed=2, **words)
    assert together == [trained.sample("day", seed=2 + index, **words) for index in range(9)]
    assert len(set(together)) == 9


def test_what_is_drawn_is_what_a_loop_over_the_whole_prefix_draws(trained):
    """The reference: no carried state, no stepper; one uniform number a character, inverted by hand."""
    text = "rain"
    for u in np.random.default_rng(11).random(30):
        ids = torch.from_numpy(trained.vocabulary.encode(text).astype("int64"))[:, None]
        p = torch.softmax(trained.model(ids, None)[0][-1, 0] / 0.8, 0).numpy()
        text += trained.vocabulary.symbols[int(np.searchsorted(np.cumsum(p), u, "right"))]
    assert trained.sample("rain", length=30, temperature=0.8, seed=11) == text


def test_a_stop_text_ends_each_sample_by_itself_and_is_left_out(manual):
    whole = manual.sample("every", length=200, num_samples=5)
    stopped = manual.sample("every", length=200, num_samples=5, stop="a")
    assert stopped == [text.partition("a")[0] for text in whole]
    assert len({len(text) for text in stopped}) > 1


def test_a_prompt_longer_than_a_window_is_read_whole(manual):
    prompt = "every day it rains " * 120  # 2,280 characters, in windows of 1,024
    ids = torch.from_numpy(manual.ids(prompt).astype("int64"))[:, None]
    logits, _ = manual.model(ids, None)
    np.testing.assert_allclose(read_prompt(manual.model, manual.ids(prompt))[0], logits[-1, 0].numpy(), atol=1e-5)


def test_a_model_of_items_starts_each_item_from_a_zero_state(tmp_path):
    names = "anna\nbob\ncarla\ndora\nemil\nfrida\ngustav\nhanna\nida\njakob\n"
    trained = load(fabricate(tmp_path / "run", "gru", names, "lines"), precision="64-true")
    text = trained.sample(length=120, seed=1)
    first, second = [part for part in text.split("\n") if part][:2]
    # The second item is what the model writes from the boundary alone, with the uniform numbers that came then
    place = text.index(second, text.index(first) + len(first))
    uniform = np.random.default_rng(1).random(200)[place - 1 :]
    ids, state = torch.tensor([[trained.boundary_id]]), None
    for symbol, u in zip(second, uniform, strict=False):
        logits, state = trained.model(ids, state)
        id = int(np.searchsorted(np.cumsum(torch.softmax(logits[-1, 0], 0).numpy()), u, "right"))
        assert trained.vocabulary.symbols[id] == symbol
        ids = torch.tensor([[id]])
    # and a prompt is the beginning of an item, whatever stood before it
    assert trained.sample("anna\nbo", length=20)[len("anna\nbo") :] == trained.sample("bo", length=20)[2:]


def test_a_model_of_bytes_writes_whole_characters(tmp_path):
    trained = load(fabricate(tmp_path / "run", "manual", "“déjà vu” – 你好吗 " * 40, **{"data.encoding": "bytes"}))
    pieces = list(generate(trained, "“d", SamplingConfig(length=300)))
    text = "".join(piece for (piece,) in pieces)
    assert text.encode().decode() == text
    assert trained.sample("“d", length=300) == "“d" + text
    assert "�" in text  # random weights write bytes that are no UTF-8, and they are told as that


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_k": 10_000}, "the vocabulary has"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "Ω"}, "Ω"),
    ],
)
def test_what_cannot_be_sampled_is_said_before_anything_is(manual, words, named):
    with pytest.raises(UserError, match=named):
        manual.sample(**words)


def test_without_a_seed_two_texts_differ(manual):
    assert manual.sample(length=60, seed=None) != manual.sample(length=60, seed=None)
