"""Links in the documentation point to existing files and names, and both languages say the same."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "src/**/*.md", "experiments/**/*.md") for page in ROOT.glob(pattern)
)
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def links_of(text: str) -> list[tuple[int, str, str]]:
    """Return (line, text, target) of every link to a file; code blocks and web addresses are skipped."""
    text = re.sub(r"^```.*?^```", lambda block: re.sub(r"[^\n]", "", block[0]), text, flags=re.MULTILINE | re.DOTALL)
    found = [(number, *link) for number, line in enumerate(text.splitlines(), start=1) for link in LINK.findall(line)]
    return [link for link in found if not link[2].startswith(("http:", "https:", "#", "mailto:"))]


def broken_links(page: Path) -> list[str]:
    """Return `line: error` of every link to a missing file, or to a Python file that lacks the link's `name`."""
    errors = []
    for number, text, target in links_of(page.read_text(encoding="utf-8")):
        file = page.parent / target.partition("#")[0]
        name = re.fullmatch(r"`[\w.]*?(\w+)`", text)
        if not file.exists():
            errors.append(f"{number}: there is no {target}")
        elif name and file.suffix == ".py" and not re.search(rf"\b{name[1]}\b", f"{file.name} {file.read_text()}"):
            errors.append(f"{number}: {target} has no {name[1]}")
    return errors


def test_every_link_points_to_a_file_that_contains_the_linked_name():
    assert [f"{page}:{error}" for page in PAGES for error in broken_links(page)] == []


def sections(text: str) -> list[tuple[str, dict[str, Counter[str]]]]:
    """Return (heading, facts) of each section: what must be the same in both languages, whatever the order."""
    parts = re.split(r"^(#+ .*)$", text, flags=re.MULTILINE)
    found = []
    for heading, part in zip(parts[1::2], parts[2::2], strict=True):
        blocks = re.findall(r"^```.*?^```|^ {4,}\S[^\n]*$", part, re.MULTILINE | re.DOTALL)
        prose = re.sub(r"^```.*?^```|^ {4,}\S[^\n]*$|^ *\d+\. ", "", part, flags=re.MULTILINE | re.DOTALL)
        code = re.findall(r"`([^`]+)`", prose)
        prose = re.sub(r"「.*?」|`[^`]+`", "", prose)  # 「」: the tutorial's own words
        links = [target.replace(".zh.md", ".md") for target in re.findall(r"\]\(([^)\s]+)\)", part)]
        facts = {
            "commands": [re.sub(r" +# .*", "", line) for block in blocks for line in block.splitlines()],
            "code": [re.sub(r"\s+", " ", one) for one in code],
            "links": links,
            "numbers": re.findall(r"\d+(?:[.,]\d+)*", re.sub(r"\]\([^)]*\)|^\|[^|]*\|", "]", prose, flags=re.M)),
            "rows": re.findall(r"^\|", prose, re.MULTILINE),
        }
        found.append((heading, {kind: Counter(some) for kind, some in facts.items()}))
    return found


def out_of_step(english: str, chinese: str) -> list[str]:
    """Return what one of two pages says and the other does not, a line for each section and kind."""
    ours, theirs = sections(english), sections(chinese)
    levels, their_levels = ([heading.partition(" ")[0] for heading, _ in page] for page in (ours, theirs))
    if levels != their_levels:
        return [f"the headings: {[heading for heading, _ in ours]}, in Chinese {[heading for heading, _ in theirs]}"]
    found = []
    for (heading, facts), (_, their_facts) in zip(ours, theirs, strict=True):
        for kind in facts:
            missing, added = facts[kind] - their_facts[kind], their_facts[kind] - facts[kind]
            if missing or added:
                found.append(f"{heading!r}: {kind} only in English {[*missing]}, only in Chinese {[*added]}")
    return found


@pytest.mark.parametrize("name", ["README", "docs/tutorial"])
def test_both_languages_have_the_same_headings_commands_links_and_numbers(name):
    english, chinese = ((ROOT / f"{name}{end}").read_text(encoding="utf-8") for end in (".md", ".zh.md"))
    assert out_of_step(english, chinese) == []
    assert f"]({Path(name).name}.zh.md)" in english.partition("\n## ")[0]
