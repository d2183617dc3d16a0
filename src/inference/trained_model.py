"""A trained model in use: step, sample, score. What `from src import load` returns."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.config.schema import Config, ModelConfig, SamplingConfig
from src.data.batching import BOUNDARY
from src.data.corpus import is_list
from src.data.vocabulary import Vocabulary, codes_of
from src.errors import UnknownCharacter, UserError, counted
from src.inference.generate import generate
from src.inference.score import Score, score_ids
from src.models.convert import convert_
from src.models.language_model import LanguageModel, State, build_model

# Implementations of the same network, between which weights move without loss; as in conf/model/
IMPLEMENTATIONS = {
    "cell": "src.models.cell.CellRNN",
    "stacked": "src.models.stacked.StackedRNN",
    "manual": "src.models.manual.ManualRNN",
}
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its vocabulary.

    model: ids in, logits out; on the CPU, in evaluation mode.
    vocabulary: str or bytes <-> ids.
    config: the configuration it was trained with.
    path: the file it was read from.
    progress: the `step` and the `epoch` of the checkpoint.
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
            state: (num_layers, batch, hidden), for an lstm the pair of them; None is zeros.
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
        """Return the prompt and the text that the model adds to it; a list of texts for more than one sample.

        Args:
            prompt: what is read first; None is a line break, if the model knows one.
            length: symbols to add: characters, or bytes if the model reads bytes.
            temperature, top_k, top_p, min_p: see `src.inference.generate`; temperature 0 always takes the likeliest.
            seed: equal seeds give equal texts; None draws one. Sample i of several is what seed + i gives alone.
            stop: a sample ends before this text.

        Raises:
            UserError: an empty prompt, a character the model does not know, a number out of range.
        """
        sampling = SamplingConfig(temperature, top_k, top_p, min_p, length, num_samples, seed, stop)
        prompt = self.start if prompt is None else prompt
        if not isinstance(prompt, str):
            raise TypeError(f"prompt: expected a str, got {prompt!r}")
        pieces = list(generate(self, prompt, sampling))
        texts = [prompt + "".join(own) for own in zip(*pieces, strict=True)]
        return texts[0] if num_samples == 1 else texts

    def score(self, text: str, name: str = "text") -> Score:
        """Return the bits of each character of a text, given all before it: the numbers of `evaluate` for that text.

        The first character is given and not scored. A model of a list scores each line and its end from a zero state.

        Raises:
            UserError: nothing to score, or a character that the model does not know.
        """
        return score_ids(self, self.ids(text, name), name)

    def to_torch_rnn(self) -> nn.RNN | nn.LSTM | nn.GRU:
        """Return the recurrence as torch's own module; `model.readout` after it gives the logits.

        Raises:
            UserError: a recurrence of the user's own, which torch does not have.
        """
        recurrence = self.model.recurrence
        if not hasattr(recurrence, "rnn"):
            recurrence = in_implementation(self, "stacked").model.recurrence
        rnn: nn.RNN | nn.LSTM | nn.GRU = recurrence.rnn  # type: ignore[assignment]  # nn.Module types it as a tensor
        return rnn

    @property
    def start(self) -> str:
        """What is read if no prompt is given: a line break, a blank, or the first symbol that the model knows."""
        known = [text for text in ("\n", " ") if ord(text) in self.vocabulary.codes]
        return known[0] if known else self.vocabulary.decode([0])

    @property
    def boundary_id(self) -> int | None:
        """The id between the items of a list, after which the state is zeros; None for a model of running text."""
        return int(self.vocabulary.encode(BOUNDARY)[0]) if is_list(self.config.data) else None

    def ids(self, text: str | bytes, what: str = "text") -> np.ndarray:
        """Return the ids of a text, in lower case if the model was trained so; warn of characters read as unknown.

        Raises:
            UserError: an empty text.
            UnknownCharacter: one that the model has never seen, and the model has no unknown symbol.
        """
        if not isinstance(text, str | bytes):
            raise TypeError(f"{what}: expected a str, got {text!r}")
        if not text:
            raise UserError(f"{what} is empty: the model needs a character to begin with, such as {self.start!r}")
        text, vocabulary = self.in_its_case(text) if isinstance(text, str) else text, self.vocabulary
        try:
            ids = vocabulary.encode(text)
        except UnknownCharacter as error:
            codes = [ord(symbol) if len(symbol) == 1 else int(symbol[2:], 16) for symbol in error.distinct]
            known = "".join(symbol for symbol in vocabulary.symbols if len(symbol) == 1)
            shown = repr(known) if len(known) <= 100 else f"{known[:100]!r} and {len(known) - 100} more"
            remedy = f"leave them out; the model knows {shown}"
            raise vocabulary.unknown_error(codes, error.count, error.first, what, remedy) from None
        if vocabulary.unknown_id is not None and (unknown := ids == vocabulary.unknown_id).any():
            names = vocabulary.names(np.unique(codes_of(text, vocabulary.kind)[unknown]).tolist())
            how_many = counted(int(unknown.sum()), vocabulary.kind)
            log.warning("%s: %s that the model does not know, read as its unknown symbol: %s", what, how_many, names)
        return ids

    def in_its_case(self, text: str) -> str:
        """Return the text in lower case if the model was trained so; as in training, a character remains one."""
        if not self.config.data.lowercase:
            return text
        return "".join(lower if len(lower := one.lower()) == 1 else one for one in text)


def in_implementation(trained: TrainedModel, name: str) -> TrainedModel:
    """Return the model with its weights in `cell`, `stacked` or `manual`; itself if it is that already.

    Raises:
        UserError: as `implementation_config`.
    """
    config = implementation_config(trained.config.model, name)
    if config is trained.config.model:
        return trained
    dtype = next(trained.model.parameters()).dtype
    with torch.random.fork_rng(devices=[]):  # building draws random weights, which are then replaced
        model = build_model(config, len(trained.vocabulary)).to(dtype).eval().requires_grad_(False)
    convert_(model, trained.model)
    return dataclasses.replace(trained, model=model, config=dataclasses.replace(trained.config, model=config))


def implementation_config(config: ModelConfig, name: str) -> ModelConfig:
    """Return the configuration of the same network in the implementation `name`.

    Raises:
        UserError: the implementation has other equations, so the weights do not move to it.
    """
    if name == config.name:
        return config
    if not {name, config.name} <= IMPLEMENTATIONS.keys():
        remedy = "leave model= out" if config.name not in IMPLEMENTATIONS else "name one of them"
        raise UserError(
            f"model={name}: the weights of a {config.name} model do not fit it; only {', '.join(IMPLEMENTATIONS)} have "
            f"the same weights; {remedy}"
        )
    return dataclasses.replace(config, name=name, _target_=IMPLEMENTATIONS[name])
