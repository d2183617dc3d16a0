"""Read many `config.yaml` that are nearly the same, fast.

The runs of a sweep share all but a few lines, and libyaml spends 2 to 4 ms on a whole config: 1,000 runs would take
longer to parse than to read. A block-style file is the sum of its top-level blocks (a key at column 0 and the lines
below it), so each distinct block is parsed once. A file in which blocks might not be independent (anchors,
documents, flow style at the top) is parsed whole, as is one where a block alone does not parse to its one key.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import yaml

# libyaml is about ten times as fast, and is missing only where PyYAML was built without it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TOP_LEVEL_KEY = re.compile(r"^([A-Za-z_][\w-]*):(?=\s|$)", re.MULTILINE)
# Something at column 0 that is neither a key, a list item of the key above, a comment nor blank.
_ANYTHING_ELSE = re.compile(r"^(?![A-Za-z_][\w-]*:(?:\s|$)|-\s|#|\s|$)", re.MULTILINE)


class NotAMapping(ValueError):
    """The text is YAML, but not a mapping of settings."""


def parse(text: str) -> dict[str, Any]:
    """The mapping that `text` holds; yaml.YAMLError where it is no YAML, NotAMapping where it is something else.

    The values may be shared with those of other files: read them, do not change them.
    """
    if not ("&" in text or _ANYTHING_ELSE.search(text)):
        starts = [match.start() for match in _TOP_LEVEL_KEY.finditer(text)]
        merged: dict[str, Any] = {}
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            block = _parse_block(text[start:end])
            if block is None:
                break
            merged.update(block)
        else:
            if merged and not text[: starts[0]].strip():
                return merged
    whole = yaml.load(text, Loader=_LOADER)
    if not isinstance(whole, dict):
        raise NotAMapping(f"a mapping was expected, got {type(whole).__name__}")
    return whole


@lru_cache(maxsize=4096)
def _parse_block(block: str) -> dict[str, Any] | None:
    """The one key of a top-level block, or None where the block cannot be read on its own."""
    try:
        parsed = yaml.load(block, Loader=_LOADER)
    except yaml.YAMLError:
        return None
    return parsed if isinstance(parsed, dict) and len(parsed) == 1 else None
