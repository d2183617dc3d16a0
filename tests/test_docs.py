"""Links in the documentation point to existing files and names, and every default in conf/ has a reason."""

import re
from pathlib import Path

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


def test_a_link_to_a_missing_file_or_a_renamed_function_is_reported_with_its_line(tmp_path):
    (tmp_path / "cell.py").write_text("class CellRNN:\n    def forward(self): ...\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[`CellRNN.forward`](cell.py) and [the cell](cell.py#L1)\n"
        "```\n[code](is not a link.py)\n```\n"
        "[`CellRNN.backward`](cell.py)\n[gone](gone.py)\n[elsewhere](https://example.org)\n"
    )
    assert broken_links(page) == ["5: cell.py has no backward", "6: there is no gone.py"]


NAMES = ("name", "_target_")  # they identify the file; they are not defaults that need a reason


def keys_without_reason(text: str) -> list[str]:
    """Return the keys with a value that have no comment on their line or at the head of their block."""
    bare, has_reason = [], False
    for line in text.split("\nhydra:")[0].splitlines():
        key, _, value = line.strip().partition(":")
        if not line.strip():
            has_reason = False
        elif "#" in line:
            has_reason = True
        elif value.strip() and not has_reason and key not in NAMES and not key.startswith("-"):
            bare.append(key)
    return bare


def test_every_default_in_conf_has_a_reason() -> None:
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert keys_without_reason(file.read_text(encoding="utf-8")) == [], file
    assert keys_without_reason("# head\n\na: 1\nb: 2  # why\n\nc:\n  d: 3\n") == ["a", "d"]
