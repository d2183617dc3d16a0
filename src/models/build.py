"""From the words of a configuration to a model. The one place that turns a name into a class."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from src.mistakes import Mistake, nearest
from src.models.language_model import LanguageModel


def build_model(words: Mapping[str, Any], vocab_size: int) -> LanguageModel:
    """Build the language model that `words` (the `model` group of conf/) describes, drawing from torch's generator.

    The recurrence is the class named by `_target_`. It is given those of our words that its constructor has and that
    are not None, and all of `options`: the words of a cell of one's own.

    Raises:
        Mistake: `_target_` names no class of `torch.nn.Module`, or one without a word that was given.
    """
    cls, options = recurrence_class(words["_target_"]), words.get("options") or {}
    known = inspect.signature(cls).parameters
    _check_words(cls.__name__, words, options, known)
    given = {word: value for word, value in words.items() if word in known and value is not None}
    recurrence = cls(input_size=vocab_size, **given, **options)
    return LanguageModel(recurrence, vocab_size, words["readout"])


# What a word means where it is left out. A class without the word does just that, and can do nothing else.
LEFT_OUT = {
    "num_layers": 1,
    "nonlinearity": None,
    "dropout": 0.0,
    "init": "torch",
    "input_scale": 1.0,
    "interlayer_scale": 1.0,
}


def _check_words(
    name: str, words: Mapping[str, Any], options: Mapping[str, Any], known: Mapping[str, inspect.Parameter]
) -> None:
    """Raise Mistake for each word that the class would not get, though it was given."""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    own = [word for word in known if word not in ("input_size", *words)]
    lacking = [word for word in options if word not in known]
    wrong = [f"model.options.{word}: {name} has no such word{nearest(word, own)}" for word in lacking]
    for word, left_out in LEFT_OUT.items():
        if word not in known and words.get(word, left_out) not in (left_out, None):
            wrong.append(f"model.{word}={words[word]} means nothing for {name}, which has {', '.join(known)}")
    if wrong:
        raise Mistake(*wrong)


def recurrence_class(target: str) -> type[nn.Module]:
    """Return the class with the dotted path `target`.

    Raises:
        Mistake: there is none, or it is not a module of torch.
    """
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Mistake(f"model._target_={target} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise Mistake(f"model._target_={target} is not a class of torch.nn.Module")
    return found
