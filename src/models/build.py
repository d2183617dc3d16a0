"""From the words of a configuration to a model. The one place that turns a name into a class."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from src.models.language_model import LanguageModel


def build_model(words: Mapping[str, Any], vocab_size: int) -> LanguageModel:
    """Build the language model that `words` (the `model` group of conf/) describes, drawing from torch's generator.

    The recurrence is the class named by `_target_`. It is given those of our words that its constructor has and that
    are not None, and all of `options`: the words of a cell of one's own.

    Raises:
        ValueError: `_target_` names no class of `torch.nn.Module`.
    """
    cls = recurrence_class(words["_target_"])
    known = inspect.signature(cls).parameters
    given = {word: value for word, value in words.items() if word in known and value is not None}
    recurrence = cls(input_size=vocab_size, **given, **(words.get("options") or {}))
    return LanguageModel(recurrence, vocab_size, words["readout"])


def recurrence_class(target: str) -> type[nn.Module]:
    """Return the class with the dotted path `target`.

    Raises:
        ValueError: there is none, or it is not a module of torch.
    """
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"model._target_={target} cannot be imported: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ValueError(f"model._target_={target} is not a class of torch.nn.Module")
    return found
