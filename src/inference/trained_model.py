"""A trained model in another implementation: the same weights, the same numbers, another code that computes them."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.config.schema import Config, ModelConfig
from src.data.corpora import is_list
from src.data.splits import BOUNDARY
from src.data.vocabulary import Vocabulary, codes_of
from src.errors import UnknownCharacter, UserError, counted
from src.inference.generate import written
from src.inference.options import Choice, Writing
from src.inference.score import score_ids
from src.inference.surprisal import Score
from src.models.convert import convert_
from src.models.language_model import LanguageModel, State, build_model

# The implementations of one architecture, whose weights move without loss; conf/model/ has the same names and classes.
IMPLEMENTATIONS = {
    "cell": "src.models.cell.CellRNN",
    "stacked": "src.models.stacked.StackedRNN",
    "manual": "src.models.manual.ManualRNN",
}


def implementation_words(words: ModelConfig, name: str) -> ModelConfig:
    """Return a `model` group that describes the same network in the implementation `name`.

    Raises:
        UserError: it has other equations, so the weights would mean something else there.
    """
    if name == words["name"]:
        return words
    if name not in IMPLEMENTATIONS or words["name"] not in IMPLEMENTATIONS:
        way_out = f"{', '.join(IMPLEMENTATIONS)} share theirs"
        if words["name"] not in IMPLEMENTATIONS:
            way_out = f"only {way_out}; leave model= out"
        raise UserError(f"model={name}: the weights of a {words['name']} model mean something else there; {way_out}")
    return dataclasses.replace(words, name=name, _target_=IMPLEMENTATIONS[name])


def in_implementation(trained: TrainedModel, name: str) -> TrainedModel:
    """Return the model with its weights in `cell`, `stacked` or `manual`; itself where it is that already.

    Raises:
        UserError: as `implementation_words`.
    """
    words = implementation_words(trained.config.model, name)
    if words is trained.config.model:
        return trained
    dtype = next(trained.model.parameters()).dtype
    with torch.random.fork_rng(devices=[]):  # random weights first, which are then replaced
        other = build_model(words, len(trained.vocabulary)).to(dtype)
    convert_(other, trained.model)
    other.eval().requires_grad_(False)
    return dataclasses.replace(trained, model=other, config=dataclasses.replace(trained.config, model=words))


# ---- A trained model in use: step, sample, score. What `from src import load` returns.

log = logging.getLogger(__name__)
STARTS = ("\n", " ")  # what a text is taken to follow where no prompt is given


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its vocabulary.

    model: ids in, logits out; on the CPU, in evaluation mode.
    vocabulary: str or bytes <-> ids.
    config: the whole configuration it was trained with, plain data.
    path: the file it was read from.
    progress: `step` and `epoch` that it had reached.
    """

    model: LanguageModel
    vocabulary: Vocabulary
    config: Config
    path: Path
    progress: dict[str, Any]

    def step(self, ids: int | list[int] | Tensor, state: State = None) -> tuple[Tensor, State]:
        """Read one character of each stream; return the logits of the next (batch, vocab), and the state.

        Args:
            ids: (batch,) ids, or one id, which is a batch of one; `vocabulary.encode` makes them.
            state: (num_layers, batch, hidden), of an lstm the pair of them; None is zeros.
        """
        x_t = torch.as_tensor(ids, dtype=torch.int64).reshape(1, -1)
        with torch.no_grad():
            logits, state = self.model(x_t, state)
        return logits[0], state

    def sample(
        self,
        prompt: str | None = None,
        *,
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = 0,
        num_samples: int = 1,
        stop: str | None = None,
    ) -> str | list[str]:
        """Return the prompt and what the model writes behind it; a list of texts for more than one sample.

        Args:
            prompt: what is read first; None is a line break, where the model knows one.
            length: symbols to write: characters, of a bytes model bytes.
            temperature, top_k, top_p, min_p: see `src.inference.options`; temperature 0 takes the likeliest, always.
            seed: equal seeds give equal texts; None draws one. Sample i of several is what seed + i gives by itself.
            stop: a sample ends before this text.

        Raises:
            UserError: an empty prompt, a character the model does not know, a number out of range.
        """
        wanted = Writing(length, Choice(temperature, top_k, top_p, min_p), seed, num_samples, stop)
        prompt = self.start if prompt is None else prompt
        if not isinstance(prompt, str):
            raise TypeError(f"prompt: expected a str, got {prompt!r}")
        pieces = list(written(self, prompt, wanted))
        texts = [prompt + "".join(own) for own in zip(*pieces, strict=True)]
        return texts[0] if num_samples == 1 else texts

    def score(self, text: str, name: str = "text") -> Score:
        """Return the bits of each character of a text, given all before it: the numbers of `evaluate` for that text.

        The first character is given and not scored. A model of items scores each line from a zero state, its end too.

        Raises:
            UserError: nothing to score, or a character that the model does not know.
        """
        return score_ids(self, self.ids(text, name), name)

    def to_torch_rnn(self) -> nn.RNN | nn.LSTM | nn.GRU:
        """Return the recurrence as torch's own module; with `model.readout` behind it, that is all of it.

        Raises:
            UserError: a recurrence of one's own, which torch does not have.
        """
        recurrence = self.model.recurrence
        if not hasattr(recurrence, "rnn"):
            recurrence = in_implementation(self, "stacked").model.recurrence
        rnn: nn.RNN | nn.LSTM | nn.GRU = recurrence.rnn  # type: ignore[assignment]  # nn.Module types it as a tensor
        return rnn

    # -- text and ids -------------------------------------------------------------------------------------------------

    @property
    def start(self) -> str:
        """What is read where no prompt is given: a line break, a blank, or the first symbol that the model knows."""
        known = [text for text in STARTS if ord(text) in self.vocabulary.codes]
        return known[0] if known else self.vocabulary.decode([0])

    @property
    def boundary_id(self) -> int | None:
        """The id between the items of a list, behind which the state is zeros; None for a model of running text."""
        return int(self.vocabulary.encode(BOUNDARY)[0]) if is_list(self.config.data) else None

    def ids(self, text: str | bytes, what: str = "text") -> np.ndarray:
        """The ids of a text, in lower case where the model was trained so; what becomes the unknown symbol is said.

        Raises:
            UserError: an empty text.
            UnknownCharacter: one that the model has never seen and has no symbol for.
        """
        if not isinstance(text, str | bytes):
            raise TypeError(f"{what}: expected a str, got {text!r}")
        if not text:
            raise UserError(f"{what} is empty: the model needs a character to begin with, such as {self.start!r}")
        if self.config.data.lowercase:
            text = text.lower() if isinstance(text, bytes) else self.in_its_case(text)
        try:
            ids = self.vocabulary.encode(text)
        except UnknownCharacter as error:
            codes = [ord(symbol) if len(symbol) == 1 else int(symbol[2:], 16) for symbol in error.distinct]
            remedy = f"leave them out; the model knows {self.known_characters()}"
            raise self.vocabulary.unknown_error(codes, error.count, error.first, what, remedy) from None
        if self.vocabulary.unknown_id is not None and (unknown := ids == self.vocabulary.unknown_id).any():
            codes = np.unique(codes_of(text, self.vocabulary.kind)[unknown]).tolist()
            how_many = counted(int(unknown.sum()), self.vocabulary.kind)
            names = self.vocabulary.names(codes)
            log.warning(
                "%s: %s that the model does not know, read as its unknown symbol: %s", what, how_many, names
            )  # where nothing is set up for logging, a plain line on stderr
        return ids

    def in_its_case(self, text: str) -> str:
        """The text in lower case where the model was trained so."""
        return "".join(map(lower_case, text)) if self.config.data.lowercase else text

    def known_characters(self) -> str:
        """The characters of the vocabulary in one line, a long one cut."""
        text = "".join(symbol for symbol in self.vocabulary.symbols if len(symbol) == 1)
        return repr(text) if len(text) <= 100 else f"{text[:100]!r} and {len(text) - 100} more"


def lower_case(character: str) -> str:
    """Its lower case, or itself where that is two characters: what `data.lowercase` did to the text."""
    lower = character.lower()
    return lower if len(lower) == 1 else character
