"""A study: a question, and its runs, results.csv, table and figure, all made by one command.

    python -m src.study                       # the studies and their questions
    python -m src.study NAME                  # run what is missing of the grid (size=full), then write the results
    python -m src.study NAME size=quick       # a part of the grid, which study.yaml states
    python -m src.study NAME check=true       # run nothing; README.md and results.csv must agree
    python -m src.study NAME table=true       # run nothing; write the table of README.md from results.csv
    python -m src.study NAME smoke=true       # a few runs of two steps each, into a scratch folder

Further words (data.root=FOLDER hydra/launcher=joblib) are those of src.train and must not change a result.
experiments/README.md has the keys of experiments/NAME/study.yaml.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.config.checks import errors_in_config
from src.config.compose import compose_and_run
from src.config.hydra_compat import CONF, ComposedJob, Launcher, expand
from src.config.overrides import errors_in_repeats, in_file, keys, quote, quote_literals
from src.config.schema import METRICS, TASKS, Config, Study, errors_in_values, flatten, key_table, to_plain
from src.errors import UserError, counted, first_line, nearest
from src.files import parse_yaml, read_text, user_path
from src.inference.options import evaluated_before, locate
from src.process import exit_with, heavy_imports, say, threads_for, use_threads
from src.sweeps.plan import Job, make_plan
from src.sweeps.sweep import run_sweep

CURVES = ("step", "characters", "seconds")  # what a figure's x may be beside a key
OPTIONS = {"size": ("full", "quick"), **dict.fromkeys(("smoke", "check", "table"), ("true", "false"))}
# Of a smoke run: two steps and one window of validation, on the texts of conf/, which need no download
SMOKE = {"logger": "none", "trainer.max_steps": 2, "trainer.limit_val_batches": 1, "trainer.val_check_interval": 1.0}
SMOKE |= {"trainer.check_val_every_n_epoch": 1, "trainer.threads": 1, "trainer.precision": "32-true"}
SMOKE_TASK = {"data.sequences": 64, "data.held_out": 32}
OF_A_TEXT = [f"data.{key}" for key in ("root", "paths", "val_path", "test_path", "codec", "input", "target", "symbols")]
SMOKE_TEXT = {"data": "text", "data.path": quote(str(CONF)), "data.split": [0.96, 0.02, 0.02], "budget": "auto"}


def folders() -> list[Path]:
    """Return the folders of all studies: below experiments/ of the working directory, else of the source tree."""
    place = Path("experiments") if Path("experiments").is_dir() else CONF.parent / "experiments"
    return sorted(file.parent for file in place.glob("*/study.yaml"))


def read_study(folder: Path) -> Study:
    """Return a study; UserError for what is wrong with its file."""
    try:
        for path in (folder / "README.md", folder / "study.yaml"):  # the table will be written into the first
            text = read_text(path) if path.exists() else ""
        merged = OmegaConf.merge(OmegaConf.structured(Study), parse_yaml(text))
        study: Study = OmegaConf.to_object(merged)  # type: ignore[assignment]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start} is wrong; save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: {first_line(error)}; experiments/README.md lists the keys") from error
    if not study.sweeps or not study.metric:
        raise UserError(f"{path}: a study needs sweeps and a metric")
    figure, known = study.figure, (*keys(Config), *CURVES)
    named = (*study.rows, study.columns, *figure.lines, figure.panels, *figure.x, *study.quick)
    unknown = [key for key in named if key and key not in known and not key.startswith("model.options.")]
    wrong = [*errors_in_values(study, Study), *(f"there is no key {key}{nearest(key, known)}" for key in unknown)]
    for name in (*study.metric, *figure.y):
        of, split, *_ = (*(measured := name.removeprefix("best/")).split("/"), "")
        if of in ("train", "val") and measured not in METRICS:
            wrong.append(f"there is no metric {name}{nearest(measured, METRICS)}")
        if of == "evaluation" and split not in study.evaluate:
            wrong.append(f"metric {name} needs evaluate: [{split}]")
    if wrong:
        raise UserError(*(f"{path}: {one}" for one in wrong))
    study.quick = {key: values if isinstance(values, list) else [values] for key, values in study.quick.items()}
    return study


def run_study(study: Study, folder: Path, size: str, words: list[str]) -> tuple[int, list[Job]]:
    """Run what is missing of a size of a study; return the exit code of the sweep, and its jobs."""
    hydra = [word for word in words if word.startswith("hydra")]
    shared = [f"name={folder.name}", *(word for word in words if word not in hydra)]
    jobs = []
    for sweep in study.sweeps:
        settings: dict[str, Any] = {"params": dict(sweep.params), "jobs": [dict(job) for job in sweep.jobs]}
        try:
            jobs += in_file(settings, quote_literals(shared), Config)
        except UserError as error:
            raise UserError(*(f"{folder / 'study.yaml'}: {one}" for one in error.messages)) from error
    if size == "smoke":  # a few of the whole grid, chosen before all of it is composed, which takes a minute
        every = [shrunk(one) for job in jobs for one in expand(OverridesParser.create().parse_overrides(job))]
        jobs = every[:: max(1, len(every) - 1)]  # the first and the last, which differ in most keys
    chosen: list[ComposedJob] = []

    def run_part(composed: list[ComposedJob], launcher: Launcher) -> int:
        part = (study.quick if size == "quick" else {}).items()
        flat = [dict(flatten(to_plain(job.config))) for job in composed]
        inside = [all(own.get(key, own.get(f"{key}.name")) in values for key, values in part) for own in flat]
        chosen.extend(itertools.compress(composed, inside))
        if not chosen:
            raise UserError(f"{folder / 'study.yaml'}: no run of the grid is in the part quick: {study.quick}")
        if size != "smoke" and (pooled := pooled_over(study, chosen)):
            cell = "a cell, or a point of the figure, would hold several runs of one seed, which differ in"
            raise UserError(f"{folder / 'study.yaml'}: {cell} {', '.join(pooled)}; add what differs to rows or lines")
        return run_sweep(chosen, launcher, sys.argv[1:], "src.study", *study.evaluate)

    code = 0
    try:
        compose_and_run("train", Config, print, ["-m", *shared, *hydra], errors_in_config, run_part, jobs)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, make_plan(chosen).jobs


def pooled_over(study: Study, jobs: list[ComposedJob]) -> list[str]:
    """Return the keys that differ among the runs of one seed in a cell or a point: no mean over seeds is possible."""
    from src.reports.runs import Settings, settings_of
    from src.reports.table import affects_result, columns_of

    spec, found = study.figure, dict[str, None]()
    shown = [(*spec.lines, spec.panels, *({x} - {*CURVES})) for x in spec.x]
    every = [settings_of(to_plain(job.config)) for job in jobs]
    for place in ((*study.rows, study.columns), *shown):
        cells: dict[tuple[Any, ...], list[Settings]] = {}
        for settings in every:
            cell = tuple(settings.get(key or "") for key in ("seed", *place))
            cells.setdefault(cell, []).append({key: value for key, value in settings.items() if affects_result(key)})
        found |= dict.fromkeys(key for runs in cells.values() for key in columns_of(runs))
    return [*found]


def shrunk(job: list[str]) -> list[str]:
    """Return the overrides of a job, made small."""
    words = {word.partition("=")[0]: word for word in job}
    small = SMOKE | (SMOKE_TASK if words.get("data", "").partition("=")[2] in TASKS else SMOKE_TEXT)
    words |= {key: f"{key}={value}" for key, value in small.items()}
    return [word for key, word in words.items() if key not in OF_A_TEXT]


def evaluate_runs(study: Study, jobs: list[Job]) -> None:
    """Write the evaluation_<split>.json that the study asks for and a finished run lacks; of its best checkpoint."""
    with heavy_imports():
        from src.inference.evaluate import evaluate_run, keep
        from src.inference.load import load
    for job, split in itertools.product((job for job in jobs if job.action == "skip"), study.evaluate):
        file, checkpoints = job.folder / f"evaluation_{split}.json", job.folder.glob("checkpoints/*.ckpt")
        if file.exists() and not any(checkpoints):
            continue  # deleted since, to make room
        if evaluated_before(job.folder, split, locate(job.folder)) is None:
            trained = load(job.folder, trust=job.config.model._target_)
            use_threads(threads_for("auto", trained.config.model.hidden_size))
            keep(trained, evaluate_run(trained, split))


def main() -> None:
    """Run the command line."""
    if {"-h", "--help"}.intersection(sys.argv[1:]):
        return say(f"{__doc__}\n")
    given = dict(word.partition("=")[::2] for word in sys.argv[1:] if word.partition("=")[0] in OPTIONS)
    words = [word for word in sys.argv[1:] if word.partition("=")[0] not in OPTIONS]
    wrong = errors_in_repeats(sys.argv[1:])
    wrong += [f"{k}={v}: expected {' or '.join(OPTIONS[k])}" for k, v in given.items() if v not in OPTIONS[k]]
    known = {folder.name: folder for folder in folders()}
    names, words = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    abouts = {w: key_table().get(w.partition("=")[0]) for w in words if not w.startswith(("hydra", "trainer.threads="))}
    wrong += [
        f"{word}: study.yaml defines the runs; only keys that change no result are allowed here"
        for word, about in abouts.items()
        if about is None or about.affects_result or word.startswith("experiment=")
    ]
    wrong += [f"{n}: there is no experiments/{n}/study.yaml{nearest(n, known)}" for n in names if n not in known]
    if wrong or len(names) > 1:
        raise UserError(*wrong or [f"one study at a time: {' '.join(names)}"])
    if not names:
        return say("".join(f"{name:22} {read_study(folder).question}\n" for name, folder in known.items()))
    folder = known[names[0]]
    study, size = read_study(folder), given.get("size", "full")
    from src.reports import results

    if given.get("check") == "true" or given.get("table") == "true":
        results.check(study, folder, rewrite=given.get("table") == "true")
        return say(f"{folder / 'README.md'} shows what results.csv holds\n")
    runs = user_path(next((word.partition("=")[2] for word in words if word.startswith("runs=")), "runs"))
    keep = size == "quick" and "full" in [*results.frame_in(folder).get("size", [])]  # which quick must not replace
    target = runs / "studies" / folder.name if keep else folder
    if given.get("smoke") == "true":
        size, target = "smoke", runs / ".smoke" / folder.name  # which reports do not search
        words = [*(word for word in words if not word.startswith("runs=")), f"runs={target / 'runs'}"]
    code, jobs = run_study(study, folder, size, words)
    if code > 1 or jobs[0].config.sweep.dry_run:
        sys.exit(code)  # stopped: the same command goes on
    if missing := [job for job in jobs if not (job.folder / "run.json").exists()]:
        say(f"{len(missing)} of {counted(len(jobs), 'runs')} not made; {target / 'results.csv'} is left as it is\n")
        sys.exit(code)
    evaluate_runs(study, jobs)
    say(f"written: {results.write(study, target, size, [job.folder for job in jobs])}\n")
    sys.exit(code)


if __name__ == "__main__":
    exit_with(main)
