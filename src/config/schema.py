"""The typed configuration: every key that a user may set, and one table of each key's properties.

Hydra merges the files of conf/ into these classes, so a wrong key or type is refused while composing. Defaults and
their reasons are in conf/; `MISSING` marks a value that conf/ always gives. What else is known about a key is the
metadata of its field (`setting`): its choices or range, whether it can change the result, and whether a resumed run may
change it. The key of a sweep's run, the grouping of a report, HParams, the check of a resume and the search all read
this table (`key_table`).

Plain Python: imports neither Hydra nor torch.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from src.errors import UserError, nearest, typed
from src.files import absolute_path

MISSING: Any = "???"  # OmegaConf's mark of a mandatory value


class Range(NamedTuple):
    """A condition on a value, and its text in an error message. NaN is in no range."""

    text: str
    holds: Callable[[Any], bool]


def at_least(low: int) -> Range:
    """Return the range from a number on."""
    return Range(f"at least {low}", lambda x: low <= x < inf)


def up_to(high: int) -> Range:
    """Return the range from 1 to a number."""
    return Range(f"1 to {high:,}", lambda x: 1 <= x <= high)


FROM_0, COUNT, SIZE = at_least(0), at_least(1), up_to(10**6)
POSITIVE = Range("a number above 0", lambda x: 0 < x < inf)
BELOW_1 = Range("0 <= x < 1", lambda x: 0 <= x < 1)
UP_TO_1 = Range("0 <= x <= 1", lambda x: 0 <= x <= 1)
FRACTION = Range("0 < x <= 1", lambda x: 0 < x <= 1)
SEED = Range(f"at least 0 and at most {2**64 - 1}", lambda x: 0 <= x < 2**64)  # torch's generators take 64 bits
WHOLE = "or a whole number of windows"
WINDOWS = Range(f"a share, 0 < x <= 1, {WHOLE}", lambda x: 0 < x <= 1 or (1 < x < inf and x == int(x)))
WINDOWS_OR_OFF = Range(f"0 (off), a share up to 1, {WHOLE}", lambda x: x == 0 or WINDOWS.holds(x))
THREADS = Range("auto or a number from 1 to 1024", lambda x: x == "auto" or x in map(str, range(1, 1025)))
DEVICES = Range("auto or at least 1", lambda x: x == "auto" or (not isinstance(x, str) and 1 <= x < inf))
ON_OFF_AUTO = Range("auto, true or false", lambda x: x in ("auto", True, False))
DURATION = Range("HH:MM:SS or DD:HH:MM:SS", lambda x: re.fullmatch(r"(\d+:)?\d{1,2}:\d{2}:\d{2}", x) is not None)
BUDGET = Range("a time, as 30s, 10min or 1h, or auto", lambda x: x == "auto" or duration(x) > 0)
BETAS = Range("two numbers, 0 <= beta < 1", lambda x: len(x) == 2 and all(0 <= beta < 1 for beta in x))
TEMPERATURES = Range("at least one number, each 0 or above", lambda x: x != [] and all(0 <= one < inf for one in x))
SPLITS = Range("a list of train, val, test", lambda x: {"train", "val", "test"}.issuperset(x))
MEASURES = ("cross_entropy", "bits_per_character", "perplexity", "accuracy")
METRICS = (*(f"{stage}/{name}" for stage in ("val", "train") for name in MEASURES), "train/loss", "val/sequences_right")
# How a text is cut into windows; all other keys of `data` define the text itself
WINDOW_KEYS = ("seq_len", "batch_size", "offset", "reset", "noise", "evaluation_streams", "evaluation_warmup")
TASKS = ("copy", "temporal_order", "brackets", "anbn", "reber")  # data that is generated (data/tasks.py)
# Implementations of the same network, between which weights move without loss
IMPLEMENTATIONS = {"cell": "src.models.cell.CellRNN", "stacked": "src.models.stacked.StackedRNN",
                   "manual": "src.models.manual.ManualRNN"}  # fmt: skip
CLASSES = IMPLEMENTATIONS | {"lstm": "src.models.gated.LSTM", "gru": "src.models.gated.GRU"}
MODEL_CLASSES = tuple(CLASSES.values())  # that a stored file may name: importing any other module would run its code
OUR_LOGGERS = {"tensorboard": "src.diagnostics.loggers.RunTensorBoard", "csv": "src.diagnostics.loggers.RunCSV"}
# Folders that are not searched for runs: they hold none, and may be large. Nor are those that begin with a dot.
NO_RUNS = ("checkpoints", "figures", "wandb", "mlruns", "__pycache__", "node_modules")
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "32", "64")

T = TypeVar("T")


def duration(text: str) -> float:
    """Return the seconds of a time as `30s`, `10min`, `1.5h`; 0 for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h)", text)
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]] if found else 0.0


@dataclass(frozen=True)
class Key:
    """The properties of one configuration key."""

    type: Any
    optional: bool  # null is a value
    choices: tuple[str, ...] | None = None
    range: Range | None = None
    affects_result: bool = True  # it can change what a run computes
    may_change: bool = False  # in a resumed run
    added_later: bool = False  # older runs lack it: null means "as before" and is left out of a run's key


def setting(default: Any, **known: Any) -> Any:
    """Return a field with a default and metadata, entries of `Key`; of a nested class they hold for every key in it."""
    return field(default=default, metadata=known)


NO_EFFECT = {"affects_result": False, "may_change": True}


@dataclass
class DataConfig:
    """A text, how it is cut into splits, and how the splits are cut into windows."""

    name: str = MISSING
    path: str | None = setting(None, may_change=True)
    paths: list[str] | None = field(default=None, metadata={"may_change": True, "added_later": True})
    val_path: str | None = setting(None, may_change=True)
    test_path: str | None = setting(None, may_change=True)
    root: str | None = setting(None, may_change=True, affects_result=False)
    encoding: str = setting("characters", choices=("characters", "bytes"))
    codec: str | None = setting(None, added_later=True)
    items: bool | None = setting(None, added_later=True)
    lowercase: bool = False
    errors: str = setting("strict", choices=("strict", "replace"))
    separator: str = "\n"
    split: list[float] | None = None
    split_seed: int = setting(0, range=FROM_0)
    unknown: str | None = setting(None, choices=("error", "map", "extend"))
    convention: str = setting("stripped", choices=("stripped", "raw"))
    input: str | None = None
    target: str | None = None
    symbols: str | None = None
    seq_len: int | None = setting(64, range=SIZE)
    batch_size: int | None = setting(32, range=SIZE)
    offset: str = setting("fixed", choices=("fixed", "random"))
    reset: str = setting("epoch", choices=("never", "epoch", "window"))
    noise: float | None = setting(None, range=BELOW_1, added_later=True)
    evaluation_streams: int = setting(20, range=SIZE)
    evaluation_warmup: int | None = setting(None, range=FROM_0, added_later=True)
    # Of the tasks (data/tasks.py)
    length: list[int] | None = field(default=None, metadata={"added_later": True})
    test_length: list[int] | None = field(default=None, metadata={"added_later": True})
    kinds: int | None = setting(None, range=COUNT, added_later=True)
    recall: int | None = setting(None, range=up_to(1000), added_later=True)
    depth: int | None = setting(None, range=up_to(100), added_later=True)
    test_depth: int | None = setting(None, range=up_to(100), added_later=True)
    sequences: int | None = setting(None, range=SIZE, added_later=True)
    held_out: int | None = setting(None, range=SIZE, added_later=True)

    @property
    def is_task(self) -> bool:
        return self.name in TASKS

    @property
    def window(self) -> tuple[int, int]:
        """Steps and streams of a window; null is 32 and 32, or less where the text is short (batching.fitted)."""
        return self.seq_len or 32, self.batch_size or 32


@dataclass
class ModelConfig:
    """A recurrence and its readout; `_target_` is the class, which gets the keys that its constructor has."""

    name: str = MISSING
    _target_: str = MISSING
    num_layers: int = setting(1, range=COUNT)
    hidden_size: int = setting(128, range=COUNT)
    nonlinearity: str | None = setting(None, choices=("tanh", "relu"))
    dropout: float = setting(0.0, range=BELOW_1)
    dropout_mask: str | None = setting(None, choices=("step", "window"), added_later=True)
    weight_drop: float | None = setting(None, range=BELOW_1, added_later=True)
    init: str = setting("torch", choices=("torch", "orthogonal", "identity"))
    input_scale: float = setting(1.0, range=POSITIVE)
    interlayer_scale: float | None = setting(None, range=POSITIVE, added_later=True)
    skip: str | None = setting(None, choices=("input", "output", "both"), added_later=True)
    single_bias: bool = False
    readout: str = setting("linear", choices=("linear", "identity"))
    readout_bias: str | None = setting(None, choices=("unigram",), added_later=True)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class LossConfig:
    """How the losses L_t of a window become the one number that is minimised."""

    over_time: str = setting("mean", choices=("sum", "mean"))


@dataclass
class OptimizerConfig:
    """One of torch's optimizers; keys that it does not have are None."""

    name: str = setting(MISSING, choices=("adam", "adamw", "sgd", "rmsprop"))
    lr: float = setting(0.001, range=POSITIVE)
    weight_decay: float = setting(0.0, range=FROM_0)
    decay: str | None = setting(None, choices=("matrices", "all"), added_later=True)
    average: float | None = setting(None, range=BELOW_1, added_later=True)
    recurrent_lr: float | None = setting(None, range=POSITIVE, added_later=True)
    betas: list[float] | None = field(default=None, metadata={"range": BETAS})
    eps: float | None = setting(None, range=POSITIVE)
    momentum: float | None = setting(None, range=BELOW_1)
    nesterov: bool | None = None
    alpha: float | None = setting(None, range=BELOW_1)


@dataclass
class SchedulerConfig:
    """How the learning rate moves, counted in optimizer steps (plateau: in validations)."""

    name: str = setting(MISSING, choices=("none", "cosine", "step", "plateau"))
    warmup_steps: int = setting(0, range=FROM_0)
    total_steps: int | None = setting(None, range=COUNT)
    final_fraction: float = setting(0.0, range=UP_TO_1)
    step_size: int = setting(1000, range=COUNT)
    gamma: float = setting(0.1, range=FRACTION)
    factor: float = setting(0.5, range=FRACTION)
    patience: int = setting(2, range=FROM_0)


@dataclass
class TrainerConfig:
    """Arguments of Lightning's Trainer that apply here, and ours: `threads`, `profile`."""

    accelerator: str = setting("cpu", choices=("cpu", "gpu", "cuda", "mps", "auto"), may_change=True)
    devices: int | str = setting(1, range=DEVICES)
    num_nodes: int = setting(1, range=COUNT)
    strategy: str = setting("auto", choices=("auto", "ddp"))
    precision: str = setting("32-true", choices=PRECISIONS)
    threads: str = setting("auto", range=THREADS, may_change=True)
    max_epochs: int = setting(10, range=COUNT, may_change=True)
    max_steps: int = setting(-1, range=at_least(-1), may_change=True)
    max_time: str | None = setting(None, range=DURATION, may_change=True)
    min_epochs: int | None = setting(None, range=COUNT, may_change=True)
    gradient_clip_val: float | None = setting(None, range=POSITIVE)
    gradient_clip_algorithm: str = setting("norm", choices=("norm", "value"))
    accumulate_grad_batches: int = setting(1, range=COUNT)
    average_last_group: bool | None = setting(None, added_later=True)
    val_check_interval: int | float = setting(1.0, range=WINDOWS)
    check_val_every_n_epoch: int = setting(1, range=COUNT)
    limit_train_batches: int | float = setting(1.0, range=WINDOWS)
    limit_val_batches: int | float = setting(1.0, range=WINDOWS)
    overfit_batches: int | float = setting(0.0, range=WINDOWS_OR_OFF)
    log_every_n_steps: int = setting(50, range=COUNT, affects_result=False)
    deterministic: bool = False
    tf32: bool | None = setting(None, added_later=True)
    cuda_graph: bool | str = setting("auto", range=ON_OFF_AUTO, affects_result=False, may_change=True)
    detect_anomaly: bool = setting(False, affects_result=False)
    profile: bool = setting(False, affects_result=False)
    enable_progress_bar: bool = setting(True, affects_result=False, may_change=True)

    @property
    def processes(self) -> int:
        """How many processes a run asks for; 0 for devices=auto, where the machine decides."""
        return 0 if self.devices == "auto" else int(self.devices) * self.num_nodes

    def windows_an_epoch(self, windows: int) -> int:
        """Return how many windows an epoch has under Lightning's limits; UserError if no validation would ever come."""
        for limit in (self.limit_train_batches, self.overfit_batches or 1.0):
            windows = limited(windows, limit)
        if 1 < self.val_check_interval > windows:
            every = f"trainer.val_check_interval={self.val_check_interval:g}"
            raise UserError(f"{every}: an epoch has {windows} windows; expected at most as many, or {WINDOWS.text}")
        return windows

    @property
    def limits(self) -> dict[str, int]:
        """max_epochs, and max_steps where it is set: the run ends at the first that it reaches."""
        return {"max_epochs": self.max_epochs} | ({"max_steps": self.max_steps} if self.max_steps >= 0 else {})

    def run_steps(self, steps_an_epoch: int) -> int:
        steps = self.max_epochs * steps_an_epoch
        return steps if self.max_steps < 0 else min(steps, self.max_steps)


def limited(windows: int, limit: int | float) -> int:
    """Return how many windows a limit leaves, a share of them or a number; at least one."""
    return max(1, min(windows, int(limit) if limit > 1 or isinstance(limit, int) else int(windows * limit)))


@dataclass
class SwitchConfig:
    """On or off."""

    enabled: bool = False


@dataclass
class DiagnosticConfig(SwitchConfig):
    """A diagnostic that runs every n steps; None: at its default times (src/diagnostics/diagnostic.py)."""

    every_n_steps: int | None = setting(None, range=COUNT)


@dataclass
class TextSamplesConfig(DiagnosticConfig):
    """A text at each of several temperatures."""

    temperatures: list[float] = field(default_factory=lambda: [0.5, 0.8, 1.0], metadata={"range": TEMPERATURES})
    length: int = setting(200, range=up_to(10**9))
    prompt: str | None = None


@dataclass
class CallbacksConfig:
    """Callbacks of a run. Each is on or off by `callbacks.<name>.enabled`."""

    save_figures: bool = False
    predicted_string: SwitchConfig = field(default_factory=SwitchConfig)
    recurrent_scalars: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    recurrent_matrix: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    gradient_flow: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    loss_by_position: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    hidden_states: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    surprisal: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    confusions: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    input_vectors: DiagnosticConfig = field(default_factory=DiagnosticConfig)
    text_samples: TextSamplesConfig = field(default_factory=TextSamplesConfig)
    layout: SwitchConfig = field(default_factory=SwitchConfig)
    hparams: SwitchConfig = field(default_factory=SwitchConfig)


@dataclass
class CheckpointConfig:
    """What is kept, when, and by which metric the best is chosen."""

    enabled: bool = setting(True, affects_result=False)
    every_n_steps: int | None = setting(None, range=COUNT, affects_result=False, may_change=True)
    every_n_minutes: float | None = setting(None, range=POSITIVE, affects_result=False, may_change=True)
    monitor: str = setting("val/cross_entropy", choices=METRICS)
    mode: str | None = setting(None, choices=("min", "max"))


@dataclass
class EarlyStoppingConfig:
    """Stop when the monitored metric of `checkpoint` has not improved for `patience` validations."""

    enabled: bool = False
    patience: int = setting(5, range=COUNT)
    min_delta: float = setting(0.0, range=FROM_0)


@dataclass
class SweepConfig:
    """Options of a sweep as a whole; they change no run's result."""

    dry_run: bool = False
    on_failure: str = setting("continue", choices=("continue", "stop"))


@dataclass
class Config:
    """The whole of a training run."""

    name: str | None = setting(None, affects_result=False)
    experiment: str | None = setting(None, affects_result=False)
    seed: int | None = setting(0, range=SEED)
    runs: str = setting("runs", affects_result=False, may_change=True)
    init_from: str | None = None
    budget: str | None = setting(None, range=BUDGET, added_later=True)
    chosen: list[str] | None = field(default=None, metadata={"affects_result": False, "added_later": True})
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig, metadata=NO_EFFECT)
    # name -> `_target_` and arguments of one of Lightning's loggers; metrics.jsonl is always written
    logger: dict[str, Any] = field(default_factory=dict, metadata=NO_EFFECT)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig, metadata={"may_change": True})
    sweep: SweepConfig = field(default_factory=SweepConfig, metadata=NO_EFFECT)

    def __post_init__(self) -> None:
        # Runs that were stored before there were several at once, and while the class was in another file
        known = self.logger or {}
        if isinstance(name := known.get("name"), str):
            self.logger = {name: {"_target_": OUR_LOGGERS[name]}} if name in OUR_LOGGERS else {}
        elif known.get("tensorboard") == {"_target_": "src.diagnostics.tensorboard.RunTensorBoard"}:
            known["tensorboard"] = {"_target_": OUR_LOGGERS["tensorboard"]}

    @property
    def run_name(self) -> str:
        """The name of a run: the user's, else its experiment, else its text and model."""
        return self.name or self.experiment or f"{self.data.name}_{self.model.name}"

    def with_absolute_paths(self) -> Config:
        """Return a copy with absolute paths of texts and `init_from`: a stored run reads the same from anywhere."""
        data = dataclasses.replace(self.data)
        for key in ("path", "val_path", "test_path", "root"):
            if path := getattr(data, key):
                setattr(data, key, absolute_path(path))
        data.paths = data.paths and [absolute_path(path) for path in data.paths]
        return dataclasses.replace(self, data=data, init_from=self.init_from and absolute_path(self.init_from))


@functools.cache
def key_table(schema: type = Config) -> dict[str, Key]:
    """Return every leaf of a schema by its dotted key: `seed`, `data.seq_len`, `callbacks.surprisal.enabled`."""
    return dict(_keys(schema, "", {}))


def _keys(schema: type, prefix: str, inherited: Mapping[str, Any]) -> Iterator[tuple[str, Key]]:
    types = get_type_hints(schema)
    for one in dataclasses.fields(schema):
        known, kinds = {**inherited, **one.metadata}, get_args(types[one.name])
        optional = type(None) in kinds
        # of `str | None` the str, of `int | float` the wider
        union = float if float in kinds else kinds and kinds[0]
        kind = types[one.name] if get_origin(types[one.name]) in (None, list, dict) else union
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{one.name}.", known)  # type: ignore[arg-type]
        else:
            yield f"{prefix}{one.name}", Key(kind, optional, **known)


def errors_in_values(config: Any, schema: type = Config) -> Iterator[str]:
    """Yield every value that is not among its key's choices or not in its range, one text an error."""
    for key, about in key_table(schema).items():
        if (value := attrgetter(key)(config)) is None:
            continue
        if about.choices is not None and str(value) not in about.choices:
            yield f"{key}={value}: expected one of {', '.join(about.choices)}{nearest(str(value), about.choices)}"
        if about.range is not None and not about.range.holds(value):
            yield f"{key}={typed(value)}: expected {about.range.text}{', or null' if about.optional else ''}"


def set_value(config: Any, key: str, value: Any) -> None:
    """Set a dotted key, also within a mapping."""
    *parents, leaf = key.split(".")
    for name in parents:
        config = config.setdefault(name, {}) if isinstance(config, dict) else getattr(config, name)
    if isinstance(config, dict):
        config[leaf] = value
    else:
        setattr(config, leaf, value)


def to_plain(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dicts, for YAML, JSON and checkpoints."""
    return dataclasses.asdict(config)


def from_plain(plain: Mapping[str, Any], schema: type[T] = Config) -> T:  # type: ignore[assignment]
    """Return stored plain data as dataclasses; a key that is not stored gets its default, an unknown one is dropped."""
    types = get_type_hints(schema)
    values = {}
    for one in dataclasses.fields(schema):  # type: ignore[arg-type]
        if one.name not in plain:
            continue
        value, kind = plain[one.name], types[one.name]
        nested = dataclasses.is_dataclass(kind) and isinstance(value, Mapping)
        values[one.name] = from_plain(value, kind) if nested else value
    return schema(**values)


def flatten(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf of nested dicts; an empty dict is a leaf."""
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_class(target: Any, trust: str | None = None, where: str = "") -> None:
    """Raise UserError for a `_target_` that is neither a class of this project nor the one that the command trusts.

    A stored run or checkpoint may come from anybody, so this is called before the module is imported; `where` names it.
    """
    if target in MODEL_CLASSES:
        return
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise UserError(f"{where}model._target_={str(target)[:100]!r} is no class: expected module.Class")
    if target != trust:
        other = "" if trust is None else f", and trust={trust} names another"
        what = f"{where}model._target_={target} is not a class of this project{other}"
        raise UserError(f"{what}; to import it, which runs its code, add trust={target}")


AT = ("best", "last")
MODEL_PRECISIONS = ("32-true", "64-true")  # float32 and float64, as trainer.precision names them


@dataclass
class StoredModel:
    """Which trained model."""

    run: str | None = None
    checkpoint: str | None = None
    at: str | None = setting(None, choices=AT)
    runs: str = "runs"
    trust: str | None = None

    @property
    def path(self) -> str | None:
        """The folder of a run, or the file of a checkpoint; None: neither is given."""
        return self.checkpoint if self.run is None else self.run


@dataclass
class InferenceConfig(StoredModel):
    """A trained model, and how it is run; `model` is a group: another implementation of the same network."""

    precision: str | None = setting(None, choices=MODEL_PRECISIONS)
    threads: str = setting("auto", range=THREADS)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def implementation(self) -> str | None:
        """The implementation that the weights move to; None: the one they were trained in."""
        return self.model.get("name")


@dataclass
class SamplingConfig:
    """How a text is generated: how each symbol is chosen, how many, from which seed, how many texts, where they end."""

    temperature: float = setting(1.0, range=FROM_0)
    top_k: int | None = setting(None, range=COUNT)
    top_p: float | None = setting(None, range=FRACTION)
    min_p: float | None = setting(None, range=UP_TO_1)
    length: int = setting(200, range=up_to(10**9))
    num_samples: int = setting(1, range=up_to(10**5))
    seed: int | None = setting(0, range=FROM_0)
    stop: str | None = None


@dataclass
class SampleConfig(SamplingConfig, InferenceConfig):
    """The whole of conf/sample.yaml."""

    prompt: str | None = None
    format: str = setting("text", choices=("text", "json"))
    interactive: bool = False


@dataclass
class ScoreConfig(InferenceConfig):
    """The whole of conf/score.yaml."""

    text: str | None = None
    file: str | None = None
    format: str = setting("text", choices=("text", "json", "html"))
    output: str | None = None


@dataclass
class EvaluationDataConfig:
    """Keys of the `data` group that may differ between training and evaluation; None: as in training."""

    path: str | None = None
    paths: list[str] | None = None
    val_path: str | None = None
    test_path: str | None = None
    root: str | None = None
    test_length: list[int] | None = None
    test_depth: int | None = setting(None, range=up_to(100))
    seq_len: int | None = setting(None, range=SIZE)
    batch_size: int | None = setting(None, range=SIZE)


@dataclass
class EvaluateConfig(InferenceConfig):
    """The whole of conf/evaluate.yaml."""

    split: str | None = setting(None, choices=("train", "val", "test"))
    format: str = setting("text", choices=("text", "json"))
    data: EvaluationDataConfig = field(default_factory=EvaluationDataConfig)


@dataclass
class ExportConfig(InferenceConfig):
    """The whole of conf/export.yaml."""

    format: str = setting("onnx", choices=("onnx", "torch", "safetensors", "html"))
    output: str | None = None
    example: str | None = None


@dataclass
class Parameter:
    """One axis of a search space: `low` to `high` (both included) or `choices`; proposed only where `when` holds."""

    kind: str = MISSING
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: list[Any] | None = None
    when: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class SamplerConfig:
    """How Optuna proposes values; `startup_trials` of them at random first."""

    name: str = setting("tpe", choices=("tpe", "random"))
    seed: int = setting(0, range=FROM_0)
    startup_trials: int = setting(10, range=FROM_0)


@dataclass
class PrunerConfig:
    """How Optuna ends trials by their validation curve; `warmup` counts validations."""

    name: str = setting("median", choices=("median", "halving", "hyperband", "none"))
    startup_trials: int = setting(5, range=FROM_0)
    warmup: int = setting(1, range=FROM_0)


@dataclass
class SearchConfig:
    """A study: `words` are the overrides of src.train that all its trials share."""

    study: str | None = None
    words: list[str] = field(default_factory=list)
    trials: int = setting(20, range=COUNT)
    minutes: float | None = setting(None, range=POSITIVE)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    pruner: PrunerConfig = field(default_factory=PrunerConfig)
    space: dict[str, Parameter] = field(default_factory=dict)


@dataclass
class SearchRoot:
    """The whole of conf/search.yaml; every other override of the command line is one of src.train."""

    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass
class GridConfig:
    """A sweep: all combinations of `params` (KEY: VALUES, as on the command line), crossed with each of `jobs`."""

    params: dict[str, Any] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class StudyFigure:
    """A row of panels for each `y`, in it one for each `x` and value of `panels`; a line for each value of `lines`.

    x: a key, or step, characters, seconds for curves; log: the axes that are logarithmic.
    """

    x: list[str] = field(default_factory=list)
    y: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    panels: str | None = None
    log: str | None = setting(None, choices=("x", "y", "xy"))


@dataclass
class Published:
    """A value that somebody has published: a line of the figure, named with its source below the table."""

    name: str = MISSING
    value: float = MISSING
    source: str = MISSING


@dataclass
class Study:
    """The whole of experiments/NAME/study.yaml: `quick` {key: values} are the runs of a smaller size.

    metric: columns of `src.runs`; `evaluate`: splits to score after training. With `success` a cell is the share of
    seeds whose metric is at least that.
    """

    question: str = MISSING
    sweeps: list[GridConfig] = field(default_factory=list)
    quick: dict[str, Any] = field(default_factory=dict)
    evaluate: list[str] = field(default_factory=list, metadata={"range": SPLITS})
    metric: list[str] = field(default_factory=list)
    success: float | None = None
    rows: list[str] = field(default_factory=list)
    columns: str | None = None
    figure: StudyFigure = field(default_factory=StudyFigure)
    published: list[Published] = field(default_factory=list)
    digits: int = setting(3, range=FROM_0)


@dataclass
class ExplainOptions:
    """The example, and how it is shown."""

    input: str | None = None
    target: str | None = None
    hidden_size: int = setting(MISSING, range=up_to(8))
    num_layers: int = setting(MISSING, range=up_to(6))
    nonlinearity: str = setting(MISSING, choices=("tanh", "relu"))
    seed: int = setting(MISSING, range=SEED)
    level: str = setting(MISSING, choices=("short", "full"))
    format: str = setting(MISSING, choices=("text", "markdown", "html", "svg"))


@dataclass
class ExplainConfig(StoredModel):
    """The whole of conf/explain.yaml; without a trained model an untrained one."""

    explain: ExplainOptions = field(default_factory=ExplainOptions)
    output: str | None = None


@dataclass
class BenchmarkOptions:
    """What is measured, and how; None where a key is not given or not used."""

    name: str = MISSING
    out: str | None = None
    models: list[str] | None = None
    hidden_size: int | None = setting(None, range=COUNT)
    num_layers: int | None = setting(None, range=COUNT)
    seq_len: int | None = setting(None, range=COUNT)
    batch_size: int | None = setting(None, range=COUNT)
    vocab_size: int | None = setting(None, range=COUNT)
    seconds: float | None = setting(None, range=POSITIVE)
    repeats: int | None = setting(None, range=COUNT)
    threads: str | None = setting(None, range=THREADS)
    accelerator: str | None = setting(None, choices=("cpu", "gpu"))
    memory: bool | None = None
    exactness: bool | None = None
    rate_size: int | None = setting(None, range=COUNT)
    size_mb: int | None = setting(None, range=COUNT)
    folder: str | None = None
    steps: int | None = setting(None, range=COUNT)


@dataclass
class BenchmarkConfig:
    """The whole of conf/benchmark.yaml."""

    benchmark: BenchmarkOptions = field(default_factory=BenchmarkOptions)
