"""Which number of a run is compared, where it stands, and what the baselines are in the same unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.metrics import perplexity
from src.reports.mistake import UserError, suggestion
from src.reports.runs import Run

SPLITS = ("train", "val", "test")
# The first that a run has. A corpus without a validation split (hello) is compared on what it was trained on.
DEFAULTS = ("val/cross_entropy", "train/cross_entropy", "train/loss")
# Numbers of run.json itself that can be asked for by name.
OF_THE_RUN = ("seconds", "parameters", "characters", "steps", "epochs")
UNITS = {
    "cross_entropy": "nats a character",
    "bits_per_character": "bits a character",
    "perplexity": "equally likely characters",
    "accuracy": "share of characters",
    "seconds": "seconds",
}
HIGHER_IS_BETTER = ("accuracy", "characters_per_second")


@dataclass(frozen=True)
class Metric:
    """A number of a run: `name` as it is logged; `split` where it is read from an evaluation, else None.

    `at_best`: its value at the best checkpoint instead of at the end of training.
    """

    name: str
    split: str | None = None
    at_best: bool = False
    mode: str = "min"

    @property
    def word(self) -> str:
        """The name without its split: `cross_entropy`."""
        return self.name.rpartition("/")[2]

    @property
    def unit(self) -> str:
        """`nats a character`, or nothing where the number has no unit."""
        return UNITS.get(self.word, "")

    def value(self, run: Run) -> float | None:
        """The number, or None where this run has none."""
        if self.split is not None:
            return number(run.evaluation(self.split).get(self.word))
        if self.at_best:
            return best_value(run, self.name)
        return final_value(run, self.name)

    def why_missing(self, run: Run) -> str:
        """Why a finished run has no such number, in words."""
        if self.split is None:
            return f"has no {self.name}{' at its best step' if self.at_best else ''}"
        if self.split in run.evaluations:
            return f"evaluation_{self.split}.json has no {self.word} or cannot be read"
        return f"not evaluated; python -m src.evaluate run=FOLDER split={self.split} does it"

    def describe(self) -> str:
        """`val/cross_entropy at the end of training, nats a character, lower is better`."""
        if self.split is not None:
            where = f" of evaluation_{self.split}.json"
        elif self.name in OF_THE_RUN:
            where = ""
        else:
            where = " at the best checkpoint" if self.at_best else " at the end of training"
        parts = [f"{self.name}{where}"] + ([self.unit] if self.unit and self.unit != self.name else [])
        return ", ".join([*parts, "higher is better" if self.mode == "max" else "lower is better"])

    def sort_key(self, value: float) -> float:
        """Smaller is better, whatever the metric's direction."""
        return -value if self.mode == "max" else value


def number(value: Any) -> float | None:
    """`value` as a float; NaN and infinities too (also as text), None for what is no number.

    A whole number beyond every float is infinite.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(value)
    return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def final_value(run: Run, name: str) -> float | None:
    """The last value that the run recorded of `name`, from run.json."""
    if name in OF_THE_RUN:
        return number(run.record.get(name))
    return number(_mapping(_mapping(run.record.get("metrics")).get("final")).get(name))


def best_value(run: Run, name: str) -> float | None:
    """`name` at the best checkpoint: the monitored value itself, or what metrics.jsonl has at that step."""
    best = _mapping(_mapping(run.record.get("metrics")).get("best"))
    if best.get("monitor") == name:
        return number(best.get("value"))
    for point in run.curve if best.get("step") is not None else ():
        if point["step"] == best["step"]:
            return number(point.get(name))
    return None


def latest_value(run: Run, name: str) -> float | None:
    """How far a run that did not finish has come: the final value if it has one, else the last of metrics.jsonl."""
    value = final_value(run, name)
    for point in reversed(run.curve if value is None else []):
        if value is None:
            value = number(point.get(name))
    return value


def resolve(name: str | None, split: str | None, at: str | None, runs: Sequence[Run]) -> Metric:
    """The metric that the command line means.

    `test/cross_entropy`, and `cross_entropy` with `--split test`, are read from evaluation_test.json; a bare
    `bits_per_character` is `val/bits_per_character`. UserError where no run has such a number.
    """
    finished = [run for run in runs if run.status == "done"] or list(runs)
    logged = _logged(finished)
    if name is not None and split is None and name not in logged:
        head, _, tail = name.partition("/")
        if head in SPLITS and any(tail in run.evaluation(head) for run in finished if head in run.evaluations):
            name, split = tail, head
    if split is not None:
        return _resolve_evaluation(name, split, at, finished)
    if name is None:
        name = next((known for known in DEFAULTS if known in logged), None)
        if name is None:
            if not logged or not any(run.status == "done" for run in runs):
                name = DEFAULTS[0]
            else:
                raise UserError(f"no run has any of {', '.join(DEFAULTS)}; name one with --metric: {', '.join(logged)}")
    elif name not in logged:
        full = next((f"{known}/{name}" for known in ("val", "train") if f"{known}/{name}" in logged), None)
        if full is None:
            raise UserError(f"no run has a metric {name}{suggestion(name, logged)}")
        name = full
    return Metric(name, None, at == "best" and name not in OF_THE_RUN, _mode(name, finished))


def _resolve_evaluation(name: str | None, split: str, at: str | None, runs: Iterable[Run]) -> Metric:
    if at is not None:
        raise UserError("--at does not go with --split: an evaluation belongs to the checkpoint that it names")
    evaluated = [run for run in runs if split in run.evaluations]
    if not evaluated:
        raise UserError(
            f"no run has an evaluation_{split}.json; python -m src.evaluate run=DIR split={split} writes a run's"
        )
    word = (name or "cross_entropy").removeprefix(f"{split}/")
    stored = [item for run in evaluated for item in run.evaluation(split).items()]
    known = list(dict.fromkeys(key for key, value in stored if number(value) is not None))
    if word not in known:
        raise UserError(f"no evaluation_{split}.json has a metric {word}{suggestion(word, known)}")
    return Metric(f"{split}/{word}", split, False, _mode(word, ()))


def _logged(runs: Iterable[Run]) -> list[str]:
    """Every metric that some run recorded, those of the text first."""
    names: dict[str, None] = {}
    for run in runs:
        final = _mapping(_mapping(run.record.get("metrics")).get("final"))
        names.update({str(key): None for key, value in final.items() if number(value) is not None})
    numbers = [key for key in OF_THE_RUN if any(number(run.record.get(key)) is not None for run in runs)]
    return [*names, *numbers]


def _mode(name: str, runs: Iterable[Run]) -> str:
    for run in runs:
        best = _mapping(_mapping(run.record.get("metrics")).get("best"))
        if best.get("monitor") == name and best.get("mode") in ("min", "max"):
            return str(best["mode"])
    return "max" if name.rpartition("/")[2] in HIGHER_IS_BETTER else "min"


def baseline_name(name: str) -> str:
    """A stored baseline's name for a reader: `ngram_5` is a 5-gram."""
    if name == "uniform":
        return "uniform guess (chance)"
    return f"{name.removeprefix('ngram_')}-gram" if name.startswith("ngram_") else name


def baselines(metric: Metric, run: Run) -> dict[str, float]:
    """What to beat, in the metric's unit: `uniform`, `unigram`, `ngram_5` as far as the run knows them.

    They are stored in bits a character, measured on `val` (an evaluation's: on its split); only the uniform guess
    is the same on every split. A uniform guess is right once in 2^bits characters; no n-gram's accuracy is known.
    """
    if metric.split is not None:
        stored = _mapping(run.evaluation(metric.split).get("baselines"))
    else:
        stored = _mapping(run.record.get("baselines"))
    final = _mapping(_mapping(run.record.get("metrics")).get("final"))
    elsewhere = metric.name.startswith("train/") and metric.split is None and any(k.startswith("val/") for k in final)
    found: dict[str, float] = {}
    for name, bits in stored.items():
        bits = number(_mapping(bits).get("bits_per_character") if isinstance(bits, Mapping) else bits)
        if bits is None or not math.isfinite(bits) or (elsewhere and name != "uniform"):
            continue
        if metric.word == "bits_per_character":
            found[name] = bits
        elif metric.word == "cross_entropy":
            found[name] = bits * math.log(2)
        elif metric.word == "perplexity":
            found[name] = perplexity(bits * math.log(2))
        elif metric.word == "accuracy" and name == "uniform":
            found[name] = 2.0**-bits
    return found
