"""The types of the callbacks group. Each is on or off by one word, `callbacks.<name>.enabled`, with its own cadence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Switch:
    """On or off."""

    enabled: bool = False


@dataclass
class WatcherConfig(Switch):
    """What looks at a run now and then; None: at the moments that src/training/callbacks/watcher.py names."""

    every_n_steps: int | None = None


@dataclass
class TextSamplesConfig(WatcherConfig):
    """A text at each of several temperatures."""

    temperatures: list[float] = field(default_factory=lambda: [0.5, 0.8, 1.0])
    length: int = 200
    prompt: str | None = None


@dataclass
class CallbacksConfig:
    """What watches a run."""

    save_figures: bool = False
    predicted_string: Switch = field(default_factory=Switch)
    recurrent_scalars: WatcherConfig = field(default_factory=WatcherConfig)
    recurrent_matrix: WatcherConfig = field(default_factory=WatcherConfig)
    gradient_flow: WatcherConfig = field(default_factory=WatcherConfig)
    loss_by_position: WatcherConfig = field(default_factory=WatcherConfig)
    hidden_states: WatcherConfig = field(default_factory=WatcherConfig)
    surprisal: WatcherConfig = field(default_factory=WatcherConfig)
    confusions: WatcherConfig = field(default_factory=WatcherConfig)
    input_vectors: WatcherConfig = field(default_factory=WatcherConfig)
    text_samples: TextSamplesConfig = field(default_factory=TextSamplesConfig)
    layout: Switch = field(default_factory=Switch)
    hparams: Switch = field(default_factory=Switch)


def mistakes_in_callbacks(callbacks: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the group beyond its types, one text a mistake."""
    for name, words in callbacks.items():
        if isinstance(words, Mapping) and (every := words.get("every_n_steps")) is not None and every < 1:
            yield f"callbacks.{name}.every_n_steps={every}: expected at least 1, or null for its own moments"
    samples = callbacks["text_samples"]
    if samples["length"] < 1:
        yield f"callbacks.text_samples.length={samples['length']}: expected at least 1 character"
    if not samples["temperatures"]:
        yield "callbacks.text_samples.temperatures=[]: expected at least one; for none, text_samples.enabled=false"
    for temperature in samples["temperatures"]:
        if not 0 <= temperature < float("inf"):
            expected = "expected 0 (always the likeliest) or a number above it"
            yield f"callbacks.text_samples.temperatures={temperature}: {expected}"


# ---- The typed schema of conf/: every key that a user may set. The defaults and their reasons stand in conf/.


@dataclass
class DataConfig:
    """A text, how it is cut into splits, and how the splits are cut into windows."""

    name: str = MISSING
    path: str | None = None
    val_path: str | None = None
    test_path: str | None = None
    root: str | None = None
    encoding: str = "characters"
    lowercase: bool = False
    errors: str = "strict"
    separator: str = "\n"
    split: list[float] | None = None
    split_seed: int = 0
    unknown: str | None = None
    convention: str = "stripped"
    input: str | None = None
    target: str | None = None
    symbols: str | None = None
    seq_len: int = 64
    batch_size: int = 32
    offset: str = "fixed"
    reset: str = "epoch"
    evaluation_streams: int = 20


@dataclass
class ModelConfig:
    """A recurrence and its readout; `_target_` is the class, which is given the words that its constructor has."""

    name: str = MISSING
    _target_: str = MISSING
    num_layers: int = 1
    hidden_size: int = 128
    nonlinearity: str | None = None
    dropout: float = 0.0
    init: str = "torch"
    input_scale: float = 1.0
    interlayer_scale: float | None = None
    single_bias: bool = False
    readout: str = "linear"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class LossConfig:
    """How the losses L_t of a window become the one number that is minimised."""

    over_time: str = "mean"


@dataclass
class OptimizerConfig:
    """One of torch's optimizers; words that it does not have are None."""

    name: str = MISSING
    lr: float = 0.001
    weight_decay: float = 0.0
    betas: list[float] | None = None
    eps: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    alpha: float | None = None


@dataclass
class SchedulerConfig:
    """How the learning rate moves, counted in optimizer steps (plateau: in validations)."""

    name: str = MISSING
    warmup_steps: int = 0
    total_steps: int | None = None
    final_fraction: float = 0.0
    step_size: int = 1000
    gamma: float = 0.1
    factor: float = 0.5
    patience: int = 2


@dataclass
class TrainerConfig:
    """Lightning's words, those that mean something here, and ours: `threads`, `profile`."""

    accelerator: str = "cpu"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: str = "auto"
    max_epochs: int = 10
    max_steps: int = -1
    max_time: str | None = None
    min_epochs: int | None = None
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str = "norm"
    accumulate_grad_batches: int = 1
    val_check_interval: int | float = 1.0
    check_val_every_n_epoch: int = 1
    limit_train_batches: int | float = 1.0
    limit_val_batches: int | float = 1.0
    overfit_batches: int | float = 0.0
    log_every_n_steps: int = 50
    deterministic: bool = False
    detect_anomaly: bool = False
    profile: bool = False
    enable_progress_bar: bool = True


@dataclass
class LoggerConfig:
    """Where the curves go: `tensorboard`, `csv` or `none`. metrics.jsonl is always written."""

    name: str = "tensorboard"


@dataclass
class CheckpointConfig:
    """What is kept, when, and by which metric the best is chosen."""

    enabled: bool = True
    every_n_steps: int | None = None
    every_n_minutes: float | None = None
    monitor: str = "val/cross_entropy"
    mode: str = "min"


@dataclass
class EarlyStoppingConfig:
    """Stop when the monitored metric of `checkpoint` has not improved for `patience` validations."""

    enabled: bool = False
    patience: int = 5
    min_delta: float = 0.0


@dataclass
class SweepConfig:
    """Words about a sweep as a whole; they change no run's result."""

    dry_run: bool = False


@dataclass
class Config:
    """The whole of a training run."""

    name: str | None = None
    experiment: str | None = None
    seed: int | None = 0
    runs: str = "runs"
    init_from: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
