"""The house keeps its floors: imports point down, no file grows past one idea, and nothing knows this machine.

    metrics 0 · data, models, analysis 1 · training 2 · config and the entries 3

Reads the source; imports nothing of it.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = {"train", "evaluate", "sample", "score", "search", "export", "report", "explain", "benchmark"}
FLOORS = {
    "metrics": 0,
    "paths": 0,
    "plain_json": 0,
    "mistakes": 0,  # how a user's mistake is raised: plain Python, for every floor
    "data": 1,
    "models": 1,
    "analysis": 1,
    "reports": 1,
    "training": 2,
    "__init__": 2,  # `from src import load`, lazily
    "config": 3,
    "sweeps": 3,
    "searching": 3,
    "benchmarks": 3,
} | dict.fromkeys(ENTRIES, 3)


def room_of(module: str) -> str:
    """The top-level room of a dotted module, or of a name imported from the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(source: str, package: str) -> list[tuple[int, str]]:
    """(line, dotted module of ours) of every import in `source`, those inside functions and under `if` included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{base}.{name.name}" if base == "src" else base) for name in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                found.append((node.lineno, str(node.args[0].value)))
    return [(line, module) for line, module in found if module.split(".")[0] == "src"]


def objection(importer: str, imported: str) -> str | None:
    """Why room `importer` may not import room `imported`, or None where it may."""
    if importer == imported and importer not in ENTRIES:
        return None
    if imported in ENTRIES:
        return "nothing imports an entry"
    if importer == "reports":
        return None if imported == "metrics" else "reports reads files only: it may import metrics and nothing else"
    if {importer, imported} == {"data", "models"}:
        return "data and models never import each other: the vocabulary's size is the handshake"
    if FLOORS[imported] > FLOORS[importer]:
        return f"imports point down: {importer} stands on floor {FLOORS[importer]}, {imported} on {FLOORS[imported]}"
    return None


def broken_rules(root: Path) -> list[str]:
    """`file:line: why` of every import under root/src that the floors forbid."""
    rooms = {path.stem if path.is_file() else path.name for path in (root / "src").iterdir()}
    told = []
    for path in sorted((root / "src").rglob("*.py")):
        relative = path.relative_to(root)
        package = ".".join(relative.parent.parts)
        importer = relative.parts[1].removesuffix(".py")
        for line, module in imports_of(path.read_text(encoding="utf-8"), package):
            imported = room_of(module)
            imported = imported if imported in rooms else "__init__"  # a name such as `load`, not a module
            if why := objection(importer, imported):
                told.append(f"{relative.as_posix()}:{line}: imports {module}; {why}")
    return told


def test_every_import_of_the_package_points_down():
    assert broken_rules(ROOT) == []


def test_every_room_of_the_package_has_its_floor():
    rooms = {path.stem for path in (ROOT / "src").iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert rooms <= FLOORS.keys(), f"say in {Path(__file__).name} on which floor {sorted(rooms - FLOORS.keys())} stands"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("models/cell.py", "from src.data.batching import Window"),
        ("data/corpus.py", "import src.models.cell"),
        ("data/corpus.py", "from ..models import cell"),
        ("models/cell.py", "from src.training.module import LanguageModule"),
        ("analysis/spectra.py", "from ..training import module"),
        ("training/module.py", "from src import config"),
        ("training/module.py", "from .. import config"),
        ("metrics.py", "from . import mistakes, models"),
        ("reports/table.py", "from src.errors import UserError"),
        ("reports/table.py", "import importlib; importlib.import_module('src.models.cell')"),
        ("evaluate.py", "from src.train import main"),
        ("config/schema.py", "from src import train"),
    ],
)
def test_an_import_that_looks_up_is_told_with_its_file_and_line(tmp_path, file, line):
    for name in ("mistakes.py", "metrics.py", "train.py", "models/cell.py", "data/windows.py", "config/schema.py"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).touch()
    (tmp_path / "src" / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "src" / "training").mkdir(exist_ok=True)
    (tmp_path / "src" / file).write_text(f"import math\n\ndef late():\n    {line}\n")
    told = broken_rules(tmp_path)
    assert len(told) == 1
    assert told[0].startswith(f"src/{file}:4: ")


def test_imports_that_look_down_or_stay_in_their_room_are_allowed():
    for importer, imported in [
        ("training", "models"),
        ("training", "data"),
        ("models", "models"),
        ("reports", "metrics"),
        ("reports", "reports"),
        ("train", "config"),
        ("train", "training"),
        ("__init__", "training"),
        ("config", "mistakes"),
        ("analysis", "models"),
    ]:
        assert objection(importer, imported) is None, (importer, imported)


def test_no_file_of_the_package_is_longer_than_250_lines():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "src").rglob("*.py")
    }
    assert {file: length for file, length in lengths.items() if length > 250} == {}


def test_no_file_names_a_home_folder_or_a_registry():
    # Built from parts, so that this file does not find itself.
    home = r"(?<![\w.<{}-])/(?:" + "|".join(["root", "home", "Users", "work", "opt", "mnt"]) + r")/\w"
    registry = "|".join(["py" + r"pi\.org", "python" + "hosted", r"download\.py" + "torch"])
    pattern = re.compile(f"{home}|{registry}")
    folders = [ROOT / name for name in ("src", "conf", "tests", "docs", "experiments", ".ci")]
    files = [path for folder in folders for path in folder.rglob("*")]
    files += [path for name in ("Makefile", "*.md", "*.toml", "*.lock", ".gitignore") for path in ROOT.glob(name)]
    told = []
    for path in files:
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".lock", ".yaml", ".txt"}:
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1):
                if pattern.search(line):
                    told.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert told == []
