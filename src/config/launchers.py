"""Which engines run the jobs of a sweep, and which extra each needs."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from src.mistakes import nearest

# hydra/launcher -> the extra of ours that brings it, and the modules that it consists of
LAUNCHERS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "basic": (None, ()),
    "joblib": ("joblib", ("hydra_plugins.hydra_joblib_launcher", "joblib")),
    "submitit_local": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "submitit_slurm": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "ray": ("ray", ("hydra_plugins.hydra_ray_launcher", "ray")),
}

PRESETS = Path(__file__).resolve().parents[2] / "conf" / "hydra" / "launcher"
# What lies below these is the engine's own.
FREE = ("hydra.launcher.ray.init", "hydra.launcher.ray.remote", "hydra.launcher.additional_parameters")


def mistake_in_launcher(name: str) -> str | None:
    """Return what is wrong with `hydra/launcher=name`: there is none of that name, or its extra is not installed."""
    if name not in LAUNCHERS:
        return f"hydra/launcher={name}: expected one of {', '.join(LAUNCHERS)}{nearest(name, LAUNCHERS)}"
    extra, modules = LAUNCHERS[name]
    if all(is_there(module) for module in modules):
        return None
    return f"hydra/launcher={name} needs the extra {extra}, which is not installed: pip install -e '.[{extra}]'"


def mistake_in_launcher_word(key: str, name: str) -> str | None:
    """Return what is wrong with the key `hydra.launcher.WORD` where jobs are run by `hydra/launcher=name`."""
    if name not in LAUNCHERS:
        return None  # which is told already
    known = words_of(name)
    if key in known or any(key.startswith(f"{free}.") for free in FREE):
        return None
    if known:
        return f"{key}: hydra/launcher={name} has no such word{nearest(key, known)}"
    has = [other for other in LAUNCHERS if key in words_of(other)]
    return f"{key} is a word of hydra/launcher={' or '.join(has or list(LAUNCHERS)[1:])}; give that too"


def words_of(name: str) -> list[str]:
    """Return the words of an engine, dotted, which its preset has all of; none where it has no preset."""
    if not (preset := PRESETS / f"{name}.yaml").exists():
        return []
    return list(_below("hydra.launcher", yaml.safe_load(preset.read_text(encoding="utf-8"))))


def _below(prefix: str, node: dict[str, Any]) -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}.{key}"
        if isinstance(value, dict):
            yield from _below(f"{prefix}.{key}", value)


def mistakes_in_engine(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Return what keeps an engine from running anything here: no workers, or no scheduler on this machine."""
    if name == "joblib" and settings.get("n_jobs") == 0:
        return ["hydra.launcher.n_jobs=0: expected a number of workers, or -1 for one a core"]
    if name == "submitit_slurm" and shutil.which("srun") is None:
        return [
            "hydra/launcher=submitit_slurm: there is no SLURM on this machine (no srun); start it on a cluster's login "
            "node, or try the same way here: hydra/launcher=submitit_local"
        ]
    return []


def is_there(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
