"""`--help` of a command: its groups and keys, each with the reason that its YAML gives. Only the files are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from src.config.overrides import CONF, groups_for
from src.config.schema import key_table

LINE = re.compile(r"( *)([\w.]+): *((?!#).*?)(?: +# *(.*))?")
MORE = {
    "train": "resume=RUN goes on with a stored run, rerun=RUN repeats it, trust=CLASS lets it import your class\n",
    "search": "every other override is one of src.train, for all trials; DIR holds files of search/ alone\n",
    "benchmark": "with benchmark=step, every other override is one of src.train\n",
}
SWEEP = "  -m, --multirun      a sweep: key=1,2 gives a key several values\n"
FLAGS = """  --cfg job           print the whole configuration, and do nothing
  --config-dir DIR    options of your own: files in DIR/<group>/
"""


def help_text(name: str, schema: type) -> str:
    """Return what `python -m src.<name> --help` prints."""
    top = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^  - (\w+): (\w+)", top, re.MULTILINE))
    groups = {group: options for group, options in groups_for(schema).items() if group in defaults}
    found: dict[str, tuple[str, str]] = {}
    files = [(CONF / f"{name}.yaml", "")]
    files += [(CONF / f"{base}.yaml", "") for base in re.findall(r"^  - (_use)$", top, re.MULTILINE)]
    for group in groups:
        files += [(file, f"{group}.") for file in _in_order(CONF / group, defaults.get(group, ""))]
    for file, prefix in files:
        for key, default, reason in reasons(file.read_text(encoding="utf-8"), prefix):
            if key.startswith(prefix):  # a text suggests values for other groups, too
                found.setdefault(key, (default, reason))
    lines = [*re.match(r"(?:#.*\n)*", top)[0].replace("# ", "").splitlines(), "", "groups:"]  # type: ignore[index]
    for group, options in groups.items():
        chosen = f" (default {defaults[group]})" if defaults.get(group, "null") != "null" else ""
        lines.append(f"  {group}={'|'.join(options)}{chosen}")
    lines += ["", "keys, with the default and its reason (an option or a text may bring another default):"]
    for key, about in key_table(schema).items():
        if key in groups or key.endswith("_target_") or (key.endswith(".name") and key.partition(".")[0] in groups):
            continue
        default, reason = found.get(key, ("", ""))
        choices = f" ({'|'.join(about.choices)})" if about.choices else ""
        lines.append(f"  {key}={default}".ljust(44) + f" {reason}{choices}".rstrip())
    return "\n".join(lines) + f"\n\n{MORE.get(name, '')}flags:\n{SWEEP * (name != 'search')}{FLAGS}"


def _in_order(folder: Path, default: str) -> list[Path]:
    """Return the files of a group: the default option, what it is based on, the rest; of texts the shared one first."""
    files = sorted(folder.glob("*.yaml"))
    first = [file for file in files if file.stem == default]
    bases = re.findall(r"^  - (_\w+)$", first[0].read_text(encoding="utf-8"), re.MULTILINE) if first else []
    based_on = [file for file in files if file.stem in bases]
    return [folder / "_text.yaml", *files] if folder.name == "data" else [*first, *based_on, *files]


def reasons(text: str, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, reason) of a YAML file of conf/; the reason is the comment on the line."""
    prefix = "" if text.startswith("# @package _global_") else prefix
    above: list[tuple[int, str]] = []  # the keys that the line is in, with their indentation
    for line in text.split("\nhydra:")[0].splitlines():
        if not (match := LINE.fullmatch(line)):
            continue
        indent, key, default, reason = len(match[1]), match[2], match[3], match[4] or ""
        above = [one for one in above if one[0] < indent]
        if default:
            yield prefix + ".".join([*(name for _, name in above), key]), default, reason
        else:
            above.append((indent, key))
