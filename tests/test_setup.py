"""Installation: dependencies, lock files, and the Makefile on machines without Python, venv or a browser."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = [
    ("requirements.lock", ()),
    ("requirements-test.lock", ("test", "joblib", "slurm", "search", "export", "notebook", "wandb", "mlflow")),
]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def pins(lock: str) -> dict[str, str]:
    """Return package -> version of a lock file; every line except comments must be one exact version."""
    found = {}
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
            assert pin, f"{lock}: {line!r} is not an exact version without a build tag, a hash or an address"
            assert canonicalize_name(pin[1]) not in found, f"{lock} lists {pin[1]} twice"
            found[canonicalize_name(pin[1])] = pin[2]
    return found


def dependencies(*extras: str) -> list[Requirement]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(text) for texts in lists for text in texts]


def closure(requirements: list[Requirement]) -> set[str]:
    """Return all packages that `requirements` need here, by the installed packages' metadata, without CUDA's."""
    environment, found, left = {**default_environment(), "extra": ""}, set(), list(requirements)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name.startswith(("nvidia-", "cuda-", "triton")) or (name in found and not requirement.extras):
            continue
        found.add(name)
        environments = [{**environment, "extra": extra} for extra in ("", *requirement.extras)]
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate(each) for each in environments):
                left.append(needed)
    return found


def test_a_dependency_that_can_change_a_number_has_a_lower_and_an_upper_bound():
    for requirement in dependencies():
        assert {each.operator for each in requirement.specifier} == {">=", "<"}, f"{requirement} is not a range"
    for requirement in dependencies(*PROJECT["optional-dependencies"]):
        assert requirement.specifier, f"{requirement} has no bound"


@pytest.mark.parametrize(("lock", "extras"), LOCKS)
def test_a_lock_has_exactly_what_is_needed_at_versions_in_range(lock, extras):
    locked = pins(lock)
    assert locked["torch"] == "2.13.0"
    assert pins("requirements.lock").items() <= locked.items()
    for requirement in dependencies(*extras):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{lock} has {requirement.name} {version}, not {requirement}"
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the locks are made for Python 3.11")
    try:
        needed = closure(dependencies(*extras))
    except importlib.metadata.PackageNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed: this environment was not made from the lock")
    assert needed == locked.keys()


def test_a_wheel_has_every_template_script_and_table_that_the_code_reads():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = {"/".join(name.split(".")): globs for name, globs in tools["setuptools"]["package-data"].items()}
    others = (".py", ".pyc", ".md")
    files = [file for file in (ROOT / "src").rglob("*.*") if file.suffix not in others and file.is_file()]
    assert len(files) >= 8
    for file in files:
        assert any(file.match(glob) for glob in patterns.get(file.parent.relative_to(ROOT).as_posix(), [])), file


@pytest.fixture
def clone(tmp_path):
    """A folder with the files that make reads, and nothing installed."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-test.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # If make started the tests, its variables would pass its flags on to these calls.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=env | variables, text=True, capture_output=True, check=False, timeout=60
    )


def script(path: Path, line: str) -> str:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def install(folder: Path, *stamps: str) -> None:
    """Create the files by which make recognises an installed .venv; its Python records its arguments in `calls`."""
    (folder / ".venv/bin").mkdir(parents=True)
    script(folder / ".venv/bin/python", 'echo "$@" >>calls')
    for file in ("bin/pip", *stamps):
        (folder / ".venv" / file).touch()


@needs_make
def test_a_target_installs_its_lock_once_and_fails_with_its_command(clone):
    def installed_by(target: str) -> list[str]:
        (clone / "calls").write_text("")
        assert make(clone, target).returncode == 0
        calls = (clone / "calls").read_text()
        assert f"-m {'src.train' if target == 'train' else 'pytest'}" in calls.splitlines()[-1]
        return re.findall(r"-m pip install .*-r (\S+)", calls)

    install(clone)
    assert installed_by("train") == ["requirements.lock"]
    assert installed_by("check") == ["requirements-test.lock"]
    assert installed_by("check") == installed_by("train") == []
    for stamp in (".installed-run", ".installed-test"):
        (clone / ".venv" / stamp).unlink()
    assert installed_by("check") == ["requirements-test.lock"]
    assert installed_by("train") == []
    script(clone / ".venv/bin/python", "exit 3")
    os.utime(clone / ".venv/bin/python", (1, 1))
    assert make(clone, "train").returncode != 0


@needs_make
def test_a_lock_that_is_newer_than_the_environment_is_installed_again(clone):
    install(clone, ".installed-run", ".installed-test")
    stamp = (clone / ".venv/.installed-test").stat().st_mtime

    def installs(target: str) -> bool:
        return "pip install" in make(clone, "-n", target).stdout

    os.utime(clone / "pyproject.toml", (stamp + 10, stamp + 10))
    assert not installs("test")
    os.utime(clone / "requirements-test.lock", (stamp + 10, stamp + 10))
    assert (installs("train"), installs("test")) == (False, True)
    os.utime(clone / "requirements.lock", (stamp + 10, stamp + 10))
    assert (installs("train"), installs("test")) == (True, True)


@needs_make
def test_an_environment_without_its_python_or_without_pip_is_made_again(clone):
    install(clone, ".installed-run")
    (clone / ".venv/bin/python").unlink()
    (clone / ".venv/bin/python").symlink_to(clone / "removed")
    plan = make(clone, "-n", "train").stdout
    assert "venv --clear" in plan
    assert plan.index("pip install") < plan.index("-m src.train")
    shutil.rmtree(clone / ".venv")
    install(clone)
    (clone / ".venv/bin/pip").unlink()
    assert "venv --clear" in make(clone, "-n", "train").stdout


@needs_make
def test_clean_removes_generated_files_and_no_run(clone):
    kept = ["runs/hello/run.json", "runs/hello/__pycache__/kept", "runs/build/kept", "src/train.py"]
    gone = [".venv/bin/python", "src/models/__pycache__/a.pyc", ".mypy_cache/a", "build/a", "unroll_rnn.egg-info/a"]
    for file in (*kept, *gone, "conf/a.yaml", "tests/a.py"):
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        (clone / file).touch()
    assert make(clone, "clean").returncode == 0
    assert [file for file in kept + gone if (clone / file).exists()] == kept
