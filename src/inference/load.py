"""`from src import load`: a checkpoint becomes a model to step, sample and score with. No Hydra, no Lightning."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.config import schema
from src.config.schema import Config, ModelConfig, SamplingConfig, from_plain
from src.data.batching import BOUNDARY
from src.data.corpus import is_list
from src.data.vocabulary import Vocabulary, codes_of
from src.errors import UnknownCharacter, UserError, first_line
from src.files import parse_json, user_path
from src.inference.evaluate import Score, score_ids
from src.inference.generate import generate
from src.inference.options import locate, newest_run
from src.models.convert import convert_
from src.models.language_model import LanguageModel, State, build_model

FORMAT = 1
REMEDY = "name a run's folder, or a file of its checkpoints/ (with at=last if the best is damaged)"
PREFIX = "model."  # in a checkpoint: Lightning names a parameter from the module that trains it
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its vocabulary."""

    model: LanguageModel  # ids in, logits out; on the CPU, in evaluation mode
    vocabulary: Vocabulary  # str or bytes <-> ids
    config: Config  # that it was trained with
    path: Path  # the file it was read from
    progress: dict[str, Any]  # the `step` and the `epoch` of the checkpoint

    def step(self, ids: int | list[int] | Tensor, state: State = None) -> tuple[Tensor, State]:
        """Read ids (batch,), or one id, a batch of one; return the next logits (batch, vocab), and the state.

        The state is (num_layers, batch, hidden), for an lstm the pair of them; None is zeros.
        """
        with torch.no_grad():
            logits, state = self.model(torch.as_tensor(ids, dtype=torch.int64).reshape(1, -1), state)
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

        The options are those of `python -m src.sample` (conf/sample.yaml); a prompt of None is a line break, if the
        model knows one. `length` counts characters, or bytes if the model reads bytes.
        """
        sampling = SamplingConfig(temperature, top_k, top_p, min_p, length, num_samples, seed, stop)
        prompt = self.start if prompt is None else prompt
        texts = [prompt + "".join(own) for own in zip(*generate(self, prompt, sampling), strict=True)]
        return texts[0] if num_samples == 1 else texts

    def score(self, text: str, name: str = "text") -> Score:
        """Return the bits of each character of a text, given all before it: the numbers of `evaluate` for that text.

        The first character is given and not scored. A model of a list scores each line and its end from a zero state.
        """
        return score_ids(self, self.ids(text, name), name)

    def to_torch_rnn(self) -> nn.RNN | nn.LSTM | nn.GRU:
        """Return the recurrence as torch's own module, if torch has one; `model.readout` after it gives the logits."""
        if skip := self.config.model.skip:
            raise UserError(f"model.skip={skip}: torch has no module with skip connections; use .model.recurrence")
        model = self.model if hasattr(self.model.recurrence, "rnn") else self.in_implementation("stacked").model
        return model.recurrence.rnn  # type: ignore[return-value]  # nn.Module types it as a tensor

    def in_implementation(self, name: str) -> TrainedModel:
        """Return the model with its weights in `cell`, `stacked` or `manual`; itself if it is that already."""
        if name == self.config.model.name:
            return self
        config = dataclasses.replace(self.config, model=implementation_config(self.config.model, name))
        model = built(config.model, self.vocabulary, next(self.model.parameters()).dtype, None)
        convert_(model, self.model)
        return dataclasses.replace(self, model=model, config=config)

    @property
    def start(self) -> str:
        """The default prompt: a line break, a blank, or the first symbol that the model knows."""
        known = [text for text in ("\n", " ") if ord(text) in self.vocabulary.codes]
        return known[0] if known else self.vocabulary.decode([0])

    @property
    def boundary_id(self) -> int | None:
        """The id between the items of a list, after which the state is zeros; None for a model of running text."""
        return int(self.vocabulary.encode(BOUNDARY)[0]) if is_list(self.config.data) else None

    def ids(self, text: str, what: str = "text") -> np.ndarray:
        """Return the ids of a text, in lower case if the model was trained so; warn of characters read as unknown."""
        if not text:
            raise UserError(f"{what} is empty: the model needs a character to begin with, such as {self.start!r}")
        text, vocabulary = self.in_its_case(text), self.vocabulary
        try:
            ids = vocabulary.encode(text)
        except UnknownCharacter as error:
            known = "".join(symbol for symbol in vocabulary.symbols if len(symbol) == 1)
            first = repr(known) if len(known) <= 100 else f"{known[:100]!r} and more"
            remedy = f"leave them out; the model knows {first}"
            if form := vocabulary.known_form(text):  # \u00e9 as one character, or as e and an accent
                remedy = f"it knows them in the form {form}: give unicodedata.normalize('{form}', text) of Python"
            raise UnknownCharacter(error.what.replace("the text", what, 1), remedy) from None
        if vocabulary.unknown_id is not None and (unknown := ids == vocabulary.unknown_id).any():
            codes = np.unique(codes_of(text, vocabulary.kind)[unknown]).tolist()
            lacking = f"{vocabulary.occurrences(codes, int(unknown.sum()))} that the model does not know"
            hint = f"; it knows them in the form {form}" if (form := vocabulary.known_form(text)) else ""
            log.warning("%s: %s, read as its unknown symbol: %s%s", what, lacking, vocabulary.names(codes), hint)
        return ids

    def in_its_case(self, text: str) -> str:
        """Return the text in lower case if the model was trained so; as in training, a character remains one."""
        if not self.config.data.lowercase:
            return text
        all_letters = self.vocabulary.kind == "characters"  # else those of ASCII, since bytes are lowered one by one
        lowered = ((one, one.lower() if all_letters or one.isascii() else one) for one in text)
        return "".join(lower if len(lower) == 1 else one for one, lower in lowered)


def implementation_config(config: ModelConfig, name: str) -> ModelConfig:
    """Return the same network's configuration in the implementation `name`; UserError if that has other equations."""
    if name == config.name:
        return config
    if not {name, config.name} <= schema.IMPLEMENTATIONS.keys():
        same = f"only {', '.join(schema.IMPLEMENTATIONS)} have the same weights; name one of them, or leave model= out"
        raise UserError(f"model={name}: the weights of a {config.name} model do not fit it; {same}")
    return dataclasses.replace(config, name=name, _target_=schema.IMPLEMENTATIONS[name])


def built(config: ModelConfig, vocabulary: Vocabulary, dtype: torch.dtype, trust: str | None) -> LanguageModel:
    """Return a model to use, not to train, whose weights are still to be set; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        return build_model(config, len(vocabulary), trust).to(dtype).eval().requires_grad_(False)


def load(
    path: str | Path, *, at: str | None = None, precision: str | None = None, trust: str | None = None
) -> TrainedModel:
    """Return the trained model at `path`, on the CPU and in evaluation mode.

    Args:
        path: a run's folder, `last` or a run's name (the newest below runs/), a checkpoint, or a .safetensors file that
            `python -m src.export` wrote.
        at: `best` or `last` of a run's folder; None is the best where there is one, else the last.
        precision: `32-true` or `64-true`; None is float64 for a run trained in it, else float32.
        trust: the class of a model of your own, as `leaky.LeakyRNN`: only then is its module imported.
    """
    if precision not in (None, *schema.MODEL_PRECISIONS):
        raise UserError(f"precision={precision}: expected one of {', '.join(schema.MODEL_PRECISIONS)}")
    file, content = read_model(newest_run(str(path)) or path, at)
    try:
        stored = content["state_dict"].items()
        weights = {name.removeprefix(PREFIX): tensor for name, tensor in stored if name.startswith(PREFIX)}
        double = any(tensor.dtype is torch.float64 for tensor in weights.values())
        dtype = torch.float64 if (precision or schema.MODEL_PRECISIONS[double]) == "64-true" else torch.float32
        config: Config = from_plain(content["unroll"]["config"])
        vocabulary = Vocabulary.from_plain(content["unroll"]["vocabulary"])
        stored = sum(tensor.untyped_storage().nbytes() for tensor in weights.values())
        ours = config.model._target_ in schema.MODEL_CLASSES
        if ours and config.model.num_layers * config.model.hidden_size**2 > stored:
            sizes = f"model.num_layers={config.model.num_layers} and model.hidden_size={config.model.hidden_size}"
            raise UserError(f"{sizes} need more weights than the {stored:,} bytes in it; use another checkpoint")
        model = built(config.model, vocabulary, dtype, trust)
        check_weights(model, weights)
        model.load_state_dict(weights)
        progress = {"step": content.get("global_step"), "epoch": content.get("epoch")}
        return TrainedModel(model, vocabulary, config, file, progress)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{file} does not fit its own configuration: {what}; {REMEDY}") from error


def check_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError for weights that are missing, have another shape than the model's, or are not finite."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in expected | found:
        if expected.get(name) != found.get(name):
            sizes = f"{found.get(name, 'missing')}, expected {expected.get(name, 'no such weights')}"
            raise UserError(f"its weights do not fit its own configuration: {name} is {sizes}; use another checkpoint")
        if not torch.isfinite(weights[name]).all():
            raise UserError(f"{name} holds nan or infinity: the run diverged or the file is damaged; use another one")


def read_model(path: str | Path, at: str | None = None) -> tuple[Path, dict[str, Any]]:
    """Return the file of a trained model and its contents, in the form of a checkpoint; no model is built."""
    file = locate(path, at)
    try:
        if file.name == "last.ckpt" and file != user_path(path):  # a run was named: if it is damaged, the one before
            return newest_sound(file.parent)
        return file, read_safetensors(file) if file.suffix == ".safetensors" else read_checkpoint(file)
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from error


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Return a checkpoint's contents, or raise a UserError; no pickle in it is ever executed."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint, or a folder or a pipe in its place")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > Path(path).stat().st_size:
                raise UserError(f"{path} would unpack to {unpacked:,} bytes; a checkpoint of ours is never packed")
            if damaged := archive.testzip():  # torch.load accepts a file with a flipped byte
                raise UserError(f"{path} is damaged: the checksum of {damaged} in it is wrong")
        content: Any = torch.load(path, map_location=map_location, weights_only=True)
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, struct, pickle and torch have a dozen of their own
        raise UserError(f"{path} is no checkpoint, only a part of one, or holds more than plain data") from error
    ours = content.get("unroll") if isinstance(content, dict) else None
    if not isinstance(ours, dict) or "format" not in ours:
        raise UserError(f"{path} was not written by this program: it has no config and no vocabulary inside")
    if ours["format"] != FORMAT:
        raise UserError(f"{path} has format {ours['format']}; this version reads format {FORMAT}")
    return content


def newest_sound(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the newest checkpoint of a run that is whole: `last.ckpt`, or with a warning the one before it."""
    errors: list[str] = []
    for path in (folder / "last.ckpt", folder / "previous.ckpt"):
        if path.exists():
            try:
                return path, read_checkpoint(path)
            except UserError as error:
                errors.extend(error.messages)
                log.warning("%s; trying the one before it", error)
    raise UserError(*errors or [f"{folder} holds no last.ckpt and no previous.ckpt"])


def export_libraries(*modules: str) -> list[ModuleType]:
    """Import libraries of the extra `export`; a UserError tells how to install them."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise UserError(f"this format needs {' and '.join(modules)}: pip install -e '.[export]' ({error})") from error


def read_safetensors(file: Path) -> dict[str, Any]:
    """Return an exported file, which has all but the weights as JSON in its header, in the form of a checkpoint."""
    (safetensors,) = export_libraries("safetensors")
    try:
        with safetensors.safe_open(file, "pt") as opened:
            identity = parse_json(opened.metadata()["unroll"])
            weights = {PREFIX + name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
        progress = identity["progress"]
    except Exception as error:  # SafetensorError is an Exception; no header, no JSON in it
        raise UserError(f"{file} is no whole file written by python -m src.export ({error})") from error
    return {"state_dict": weights, "unroll": identity, "global_step": progress["step"], "epoch": progress["epoch"]}
