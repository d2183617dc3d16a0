"""The set-up: what is asked for, what is locked, and what make does with it on machines that are not this one."""

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
LOCKED_EXTRAS = ("test", "joblib", "slurm", "search", "export")
TARGETS = {"help", "train", "test", "check", "lint", "types", "tensorboard", "bench", "browser", "clean"}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def pins(lock: str) -> dict[str, str]:
    """Package -> version of a lock file; its comments aside, every line must be one exact version."""
    found = {}
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
            assert pin, f"{lock}: {line!r} is no exact version without a local tag, a hash or an address"
            assert canonicalize_name(pin[1]) not in found, f"{lock} names {pin[1]} twice"
            found[canonicalize_name(pin[1])] = pin[2]
    return found


def asked_for(*extras: str) -> list[Requirement]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    return [Requirement(text) for texts in lists for text in texts]


def closure(requirements: list[Requirement]) -> set[str]:
    """Everything that `requirements` need on this machine, by the installed packages' own word; CUDA's aside."""
    environment, found, left = {**default_environment(), "extra": ""}, set(), list(requirements)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        wanted = [{**environment, "extra": extra} for extra in ("", *requirement.extras)]
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        fresh = name not in found or requirement.extras
        if not fresh or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate(each) for each in wanted):
                needed.marker = None
                left.append(needed)
    return found


# --- what is asked for -----------------------------------------------------------------------------------------------


def test_the_distribution_is_called_unroll_rnn_and_asks_for_python_3_11():
    assert PROJECT["name"] == "unroll-rnn"
    assert PROJECT["requires-python"] == ">=3.11"


def test_every_dependency_has_a_bound_and_its_reason_on_the_line():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    for requirement in asked_for(*PROJECT["optional-dependencies"]):
        assert requirement.specifier, f"{requirement} has no bound"
        line = next(line for line in lines if line.strip().startswith(f'"{requirement.name}'))
        assert len(line.partition("#")[2].strip()) > 10, f"no reason: {line.strip()}"


def test_what_can_change_a_number_has_an_upper_bound():
    for requirement in asked_for():
        bounds = {each.operator for each in requirement.specifier}
        assert bounds == {">=", "<"}, f"{requirement} is no range"


# --- what is locked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", ()), ("requirements-test.lock", LOCKED_EXTRAS)])
def test_a_lock_holds_all_that_is_asked_for_at_a_version_in_range(lock, extras):
    locked = pins(lock)
    for requirement in asked_for(*extras):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{lock} has {requirement.name} {version}; asked: {requirement}"


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock"])
def test_torch_is_pinned_without_a_build_tag_and_the_header_says_so(lock):
    assert pins(lock)["torch"] == "2.13.0"
    header = "".join(line for line in (ROOT / lock).read_text().splitlines(keepends=True) if line.startswith("#"))
    for words in ("Python 3.11", "without a local build tag", "make lock"):
        assert words in " ".join(header.replace("#", " ").split()), f"{lock}'s header does not say: {words}"


def test_the_test_lock_is_the_running_lock_and_more():
    running, testing = pins("requirements.lock"), pins("requirements-test.lock")
    assert running.items() <= testing.items()
    assert "pytest" not in running


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the locks are made for Python 3.11")
@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", ()), ("requirements-test.lock", LOCKED_EXTRAS)])
def test_a_lock_is_closed_nothing_that_is_needed_is_left_to_chance(lock, extras):
    try:
        needed = closure(asked_for(*extras))
    except importlib.metadata.PackageNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed here: this environment was not made from the lock")
    assert needed == pins(lock).keys()


# --- what make does --------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path):
    """A folder with what make reads, and nothing installed."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-test.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # Started by make, the tests would hand its flags on to the makes that they start.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    return subprocess.run(
        ["make", *words], cwd=folder, env=env | variables, text=True, capture_output=True, check=False, timeout=60
    )


def install(folder: Path, *stamps: str) -> None:
    """What an installed .venv looks like to make."""
    (folder / ".venv/bin").mkdir(parents=True)
    for file in ("bin/python", "bin/pip", *stamps):
        (folder / ".venv" / file).touch()


def fake_python(folder: Path, says: str) -> str:
    """A Python that runs no code: it answers `-c` with what the shell line `says`, looking at the code in $2."""
    path = folder / "fakepython"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return str(path)


@needs_make
def test_make_alone_lists_every_target_with_a_line_of_help(clone):
    answer = make(clone)
    listed = dict(re.findall(r"^make (\w+) +(\S.*)$", answer.stdout, flags=re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (clone / "Makefile").read_text(), flags=re.MULTILINE)
    assert answer.returncode == 0
    assert listed.keys() >= TARGETS
    assert listed.keys() == set(phony[1].split())


@needs_make
@pytest.mark.parametrize(
    ("target", "lock", "job"),
    [("train", "requirements.lock", "-m src.train"), ("test", "requirements-test.lock", "-m pytest")],
)
def test_a_fresh_clone_installs_from_the_lock_and_a_second_call_installs_nothing(clone, target, lock, job):
    first = make(clone, "-n", target).stdout
    assert f"-r {lock}" in first
    assert first.index("pip install") < first.index(job)
    install(clone, ".installed-run", ".installed-test")
    second = make(clone, "-n", target).stdout
    assert "install" not in second.replace(".installed", "")
    assert job in second


@needs_make
def test_after_make_test_make_train_installs_nothing_and_the_other_way_round_only_the_test_tools(clone):
    def installed_by(target: str) -> list[str]:
        log = clone / "calls"
        log.write_text("")
        assert make(clone, target).returncode == 0
        return re.findall(r"-m pip install .*-r (\S+)", log.read_text())

    install(clone)
    (clone / ".venv/bin/python").write_text('#!/bin/sh\necho "$@" >>calls\n')
    (clone / ".venv/bin/python").chmod(0o755)
    assert installed_by("train") == ["requirements.lock"]
    assert installed_by("test") == ["requirements-test.lock"]
    assert installed_by("test") == installed_by("train") == []
    (clone / ".venv/.installed-run").unlink()
    (clone / ".venv/.installed-test").unlink()
    assert installed_by("check") == ["requirements-test.lock"]
    assert installed_by("train") == []


@needs_make
@pytest.mark.parametrize(
    ("changed", "target", "installs"),
    [
        ("requirements.lock", "train", True),
        ("requirements.lock", "test", True),
        ("requirements-test.lock", "test", True),
        ("requirements-test.lock", "train", False),
        ("pyproject.toml", "test", False),
    ],
)
def test_a_lock_that_is_newer_than_the_environment_is_installed_again(clone, changed, target, installs):
    install(clone, ".installed-run", ".installed-test")
    stamp = (clone / ".venv/.installed-test").stat().st_mtime
    os.utime(clone / changed, (stamp + 10, stamp + 10))
    assert ("pip install" in make(clone, "-n", target).stdout) is installs


@needs_make
def test_an_environment_whose_python_is_gone_or_that_was_left_half_made_is_made_again(clone):
    install(clone, ".installed-run")
    (clone / ".venv/bin/python").unlink()
    (clone / ".venv/bin/python").symlink_to(clone / "removed")
    dangling = make(clone, "-n", "train").stdout
    assert "venv --clear" in dangling
    assert "pip install" in dangling
    shutil.rmtree(clone / ".venv")
    install(clone)
    (clone / ".venv/bin/pip").unlink()
    assert "venv --clear" in make(clone, "-n", "train").stdout


@needs_make
def test_where_no_python_fits_make_says_what_to_install(clone):
    too_old = fake_python(clone, "exit 1")
    answer = make(clone, f"PYTHON={too_old}", "train")
    assert answer.returncode != 0
    assert "Python >= 3.11" in answer.stderr
    assert "apt-get install python3 python3-venv" in answer.stderr
    assert too_old in answer.stderr
    assert not (clone / ".venv").exists()


@needs_make
def test_where_venv_is_missing_make_says_what_to_install(clone):
    without_venv = fake_python(clone, 'case "$2" in *ensurepip*) exit 1;; esac')
    answer = make(clone, "test", PYTHON=without_venv)
    assert answer.returncode != 0
    assert f"{without_venv} has no venv module" in answer.stderr
    assert "apt-get install python3-venv" in answer.stderr
    assert not (clone / ".venv").exists()


@needs_make
def test_a_failed_job_is_a_failed_make(clone):
    install(clone, ".installed-run")
    (clone / ".venv/bin/python").write_text("#!/bin/sh\nexit 3\n")
    (clone / ".venv/bin/python").chmod(0o755)
    os.utime(clone / ".venv/bin/python", (1, 1))
    assert make(clone, "train").returncode != 0


@needs_make
def test_clean_removes_what_can_be_made_again_and_no_run(clone):
    kept = ["runs/hello/run.json", "runs/hello/__pycache__/kept", "runs/build/kept", "src/train.py"]
    gone = [
        ".venv/bin/python",
        "src/__pycache__/a.pyc",
        "src/models/__pycache__/a.pyc",
        ".mypy_cache/a",
        "build/a",
        "unroll_rnn.egg-info/PKG-INFO",
        ".pytest_cache/a",
        ".ruff_cache/a",
        ".hypothesis/a",
    ]
    for file in kept + gone:
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        (clone / file).touch()
    for folder in ("conf", "tests"):
        (clone / folder).mkdir()
    assert make(clone, "clean").returncode == 0
    assert [file for file in kept if not (clone / file).exists()] == []
    assert [file for file in gone if (clone / file).exists()] == []


@needs_make
@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ({}, "no apt-get here"),
        ({"apt-get": "exit 100", "id": "echo 1000"}, "sudo apt-get install chromium"),
        ({"apt-get": "exit 100", "id": "echo 0"}, "could not install chromium"),
        ({"chromium": "exit 0", "apt-get": "touch called"}, "/chromium"),
    ],
)
def test_a_browser_that_cannot_be_had_never_fails_the_build(clone, tools, says):
    bare = clone / "bin"
    bare.mkdir()
    for name, line in tools.items():
        (bare / name).write_text(f"#!/bin/sh\n{line}\n")
        (bare / name).chmod(0o755)
    (bare / "make").symlink_to(shutil.which("make"))
    answer = make(clone, "browser", PATH=str(bare))
    assert answer.returncode == 0
    assert says in answer.stdout
    assert not (clone / "called").exists()


def test_continuous_integration_runs_make_test():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"
