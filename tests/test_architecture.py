"""The architecture, read from the source: imports point down, private interfaces stay in the compat files, types hold.

Parses the files of src/; imports none of them.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = {"train", "evaluate", "sample", "score", "search", "export", "report", "explain", "benchmark",
           "study"}  # fmt: skip
# A package may import those of a lower number, and itself. `config.schema` is below all others of config.
LEVELS = {
    **dict.fromkeys(("errors", "files", "metrics"), 0),
    "config.schema": 1,
    **dict.fromkeys(("process", "data", "models", "reports"), 2),
    "baselines": 3,
    "inference": 4,
    **dict.fromkeys(("__init__", "diagnostics", "config"), 5),  # __init__: `from src import load`, lazily
    "training": 6,
    **dict.fromkeys(("sweeps", "benchmarks", "worked_example"), 7),
    **dict.fromkeys(ENTRIES, 8),
}
COMPAT = {"training/lightning_compat.py", "config/hydra_compat.py", "models/kernels.py", "models/cuda.py"}
PUBLIC_ALL_THE_SAME = {"_replace", "_asdict", "_fields", "_exit"}  # of a NamedTuple, of os
LIBRARIES = ("lightning", "hydra", "omegaconf", "optuna", "torch")


def unit_of(module: str) -> str:
    """Return the package of a dotted module of src, or the module itself at the top level."""
    parts = module.split(".")[1:]
    return "config.schema" if parts[:2] == ["config", "schema"] else parts[0] if parts else "__init__"


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import from src, those inside functions and under `if` included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] == "src")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "src.relative"
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "src":
            deeper = node.module in ("src", "src.config")
            yield from ((node.lineno, f"{node.module}.{name.name}" if deeper else node.module) for name in node.names)


def import_error(importer: str, imported: str) -> str | None:
    """Return why `importer` may not import `imported`, or None if it may."""
    if imported == "relative":
        return "imports are absolute"
    imported = imported if imported in LEVELS else "__init__"  # a name such as `load`, not a module
    if imported in ENTRIES:
        return "nothing imports an entry"
    if importer == imported or LEVELS[imported] < LEVELS[importer]:
        return None
    return f"imports point down: {importer} is on level {LEVELS[importer]}, {imported} on {LEVELS[imported]}"


def sources(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((root / "src").rglob("*.py")):
        yield path.relative_to(root / "src").as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def broken_imports(root: Path) -> list[str]:
    """Return `file:line: reason` of every import under src/ that the levels forbid."""
    found = []
    for file, tree in sources(root):
        importer = unit_of("src." + file.removesuffix(".py").replace("/", "."))
        for line, module in imports_of(tree):
            if reason := import_error(importer, unit_of(module)):
                found.append(f"src/{file}:{line}: imports {module}; {reason}")
    return found


def is_private(name: object) -> bool:
    return isinstance(name, str) and bool(re.match(r"_.*(?<!__)$", name)) and name not in PUBLIC_ALL_THE_SAME


def private_uses(tree: ast.Module, own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of private modules, names and attributes of the libraries, as far as the syntax shows them."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            names = [*(node.module or "").split("."), *(name.name for name in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for name in node.names for part in name.name.split(".") if name.name.startswith(LIBRARIES)]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            names = [argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)]
        yield from ((node.lineno, name) for name in names if is_private(name) and name not in own)


def own_names(root: Path) -> set[str]:
    """Return the names that the classes and modules of src define themselves."""
    own = set()
    for node in (node for _, tree in sources(root) for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                own.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    return own


def test_every_import_of_the_package_points_down():
    assert broken_imports(ROOT) == []


def test_every_package_has_its_level():
    units = {path.stem for path in (ROOT / "src").iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert units == LEVELS.keys() - {"config.schema"}


UPWARD = {
    "models/cell.py": "from src.data.batching import Window",
    "data/corpus.py": "from ..models import cell",
    "diagnostics/drawing.py": "from src.training import module",
    "training/module.py": "from src import sweeps",
    "metrics.py": "from src import models",
    "config/schema.py": "from src.config import checks",
    "evaluate.py": "from src.train import main",
}


def test_an_import_that_points_up_is_reported_with_its_file_and_line(tmp_path):
    for file, line in UPWARD.items():
        (tmp_path / "src" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / file).write_text(f"import math\n\ndef late():\n    {line}\n")
    assert [error.partition(": imports src.")[0] for error in broken_imports(tmp_path)] == [
        f"src/{file}:4" for file in sorted(UPWARD)
    ]


def test_private_interfaces_of_libraries_are_used_in_the_compat_files_alone():
    own = own_names(ROOT)
    found = [
        f"src/{file}:{line}: {name}"
        for file, tree in sources(ROOT)
        if file not in COMPAT
        for line, name in private_uses(tree, own)
    ]
    assert found == [], "private interfaces belong in a compat file, with the version, the reason and a test"


def test_a_configuration_is_typed_in_every_public_function():
    found = []
    for file, tree in sources(ROOT):
        if file.split("/")[0] not in ("config", "training", "inference", "sweeps"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                    kind = ast.unparse(argument.annotation) if argument.annotation else ""
                    if argument.arg in ("config", "words", "data") and "[str, Any]" in kind:
                        found.append(f"src/{file}:{node.lineno}: {node.name}({argument.arg}: {kind})")
    assert found == []


def test_no_file_names_a_home_folder_or_a_registry():
    # Built from parts, so that this file does not find itself.
    home = r"(?<![\w.<{}-])/(?:" + "|".join(["root", "home", "Users", "work", "opt", "mnt"]) + r")/\w"
    registry = "|".join(["py" + r"pi\.org", "python" + "hosted", r"download\.py" + "torch"])
    pattern = re.compile(f"{home}|{registry}")
    folders = [ROOT / name for name in ("src", "conf", "tests", "docs", "experiments", ".ci")]
    files = [path for folder in folders for path in folder.rglob("*")]
    files += [path for name in ("Makefile", "*.md", "*.toml", "*.lock", ".gitignore") for path in ROOT.glob(name)]
    found = []
    for path in files:
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".lock", ".yaml", ".txt"}:
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1):
                if pattern.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []
