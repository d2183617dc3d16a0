"""Which engines run the jobs of a sweep, and which extra each needs."""

from __future__ import annotations

import importlib.util

from src.mistakes import nearest

# hydra/launcher -> the extra of ours that brings it, and the modules that it consists of
LAUNCHERS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "basic": (None, ()),
    "joblib": ("joblib", ("hydra_plugins.hydra_joblib_launcher", "joblib")),
    "submitit_local": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "submitit_slurm": ("slurm", ("hydra_plugins.hydra_submitit_launcher", "submitit")),
    "ray": ("ray", ("hydra_plugins.hydra_ray_launcher", "ray")),
}


def mistake_in_launcher(name: str) -> str | None:
    """Return what is wrong with `hydra/launcher=name`: there is none of that name, or its extra is not installed."""
    if name not in LAUNCHERS:
        return f"hydra/launcher={name}: expected one of {', '.join(LAUNCHERS)}{nearest(name, LAUNCHERS)}"
    extra, modules = LAUNCHERS[name]
    if all(is_there(module) for module in modules):
        return None
    return f"hydra/launcher={name} needs the extra {extra}, which is not installed: pip install -e '.[{extra}]'"


def is_there(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
