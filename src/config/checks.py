"""What a whole configuration must satisfy beyond its types: choices, ranges, and keys that do not go together.

No torch, and no text is opened.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from src.config.schema import MODEL_CLASSES, NO_RUNS, OUR_LOGGERS, Config, SchedulerConfig, errors_in_values
from src.files import user_path

GATED = ("lstm", "gru")
# Keys of the optimizer group that each optimizer has, beside lr and weight_decay.
OPTIMIZER_KEYS = {"adam": ("betas", "eps"), "adamw": ("betas", "eps"), "sgd": ("momentum", "nesterov"),
                  "rmsprop": ("alpha", "eps", "momentum")}  # fmt: skip
SCHEDULER_KEYS = {"cosine": ("final_fraction", "total_steps"), "step": ("step_size", "gamma"),
                  "plateau": ("factor", "patience")}  # fmt: skip

# Loggers of Lightning's with an extra of ours, which has the package's name
TRACKERS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}
# A command that sets the first key also resets the second, unless it sets both. A stored run keeps its older values:
# null is the behaviour from before the second key existed.
GOES_WITH: dict[str, tuple[str, Any]] = {
    "checkpoint.monitor": ("checkpoint.mode", None),
    "optimizer.weight_decay": ("optimizer.decay", "matrices"),
    "trainer.accumulate_grad_batches": ("trainer.average_last_group", True),
    "trainer.overfit_batches": ("data.offset", "fixed"),
}

# The keys that budget=auto may choose, and those for a time budget. Of a class of the user's own, only the width
BY_SIZE = tuple(f"model.{key}" for key in ("hidden_size", "num_layers", "dropout", "dropout_mask"))
BY_SIZE += tuple(f"model.{key}" for key in ("init", "input_scale", "interlayer_scale", "readout_bias"))
BY_SIZE += ("data.batch_size", "optimizer.lr", "optimizer.weight_decay", "trainer.max_epochs")
BY_TIME = (
    *BY_SIZE, "model.name", "model._target_", "data.seq_len", "data.offset", "optimizer.name", "optimizer.decay",
    "optimizer.betas", "optimizer.eps", "scheduler.name", "scheduler.warmup_steps", "trainer.gradient_clip_val",
    "trainer.precision", "trainer.max_steps",
)  # fmt: skip
LENGTH = {"trainer.max_epochs", "trainer.max_steps"}


def choose_by_budget(config: Config, given: set[str], by_files: set[str]) -> None:
    """Set, in place, which keys the budget is to choose: those that neither the command nor the files it names set.

    A time replaces the length in a file. The class of the model is chosen here: a run is named after it.
    """
    keys = BY_SIZE if config.budget == "auto" else BY_TIME
    if config.budget != "auto" and "trainer" not in given:
        by_files = by_files - LENGTH
    if "debug" in given:  # a preset says how long; a text to overfit needs no dropout
        by_files = by_files | LENGTH | {"model.dropout"}
    if "optimizer" in given or ("optimizer.name" in by_files and config.optimizer.name != "adamw"):  # has other keys
        keys = tuple(key for key in keys if not key.startswith("optimizer."))
    free = [key for key in keys if key not in given | by_files]
    if {"model.name", "model._target_"} <= set(free):
        config.model.name, config.model._target_ = "manual", "src.models.manual.ManualRNN"
    if config.model._target_ not in MODEL_CLASSES:
        free = [key for key in free if not key.startswith("model.") or key == "model.hidden_size"]
    config.chosen = free


def errors_in_config(config: Config) -> list[str]:
    """Return everything that is wrong with a composed configuration, one text an error."""
    from src.data.corpus import EXTEND, errors_in_data  # with numpy, which --help and --cfg do without

    groups, name = [*errors_in_data(config.data), *_errors_in_loggers(config.logger)], _errors_in_name(config)
    if config.data.unknown == "extend" and config.init_from is None:
        groups.append(EXTEND)
    return [*errors_in_values(config), *name, *groups, *_combinations(config), *errors_if_new(config)]


def errors_if_new(config: Config) -> list[str]:
    """Return what is refused for a new run only: stored older runs are resumed and repeated unchanged."""
    from src.data.corpus import is_list

    checkpoint, clip, errors = config.checkpoint, config.trainer.gradient_clip_val, []
    best = direction(checkpoint.monitor)
    if (checkpoint.mode or best) != best:
        what = f"the best {checkpoint.monitor} is the {best}imum"
        errors.append(f"checkpoint.mode={checkpoint.mode}: {what}; leave it out, or use {best}")
    if config.loss.over_time == "sum" and clip is not None and config.data.input is None:
        why = f"the sum over a window has a gradient data.seq_len={config.data.seq_len} times that of its mean"
        errors.append(f"loss.over_time=sum: {why}; add trainer.gradient_clip_val=null, which is {clip:g}")
    name = "cosine" if "scheduler.name" in (config.chosen or ()) else config.scheduler.name  # what a budget will choose
    for scheduler, keys in SCHEDULER_KEYS.items():
        for key in keys if scheduler != name else ():
            if (value := getattr(config.scheduler, key)) != getattr(SchedulerConfig, key):
                errors.append(f"scheduler.{key}={value} is not used by scheduler={name}; use {scheduler} or omit it")
    if checkpoint.monitor == "val/sequences_right" and not config.data.is_task:
        errors.append(f"checkpoint.monitor=val/sequences_right: data={config.data.name} has none; use val/accuracy")
    if config.data.split_seed and not is_list(config.data):
        errors.append(f"data.split_seed={config.data.split_seed} is for lists, and this is a running text; omit it")
    return errors


def direction(monitor: str) -> str:
    """Return whether the best value of a metric is its `min` or its `max`."""
    return "max" if monitor.endswith(("/accuracy", "/sequences_right")) else "min"


def resolve(config: Config) -> Config:
    """Set, in place, what follows from other keys; a key that has no effect is null, as in runs that lack it."""
    checkpoint, optimizer, trainer, model = config.checkpoint, config.optimizer, config.trainer, config.model
    config.runs = str(user_path(config.runs))
    checkpoint.mode = checkpoint.mode or direction(checkpoint.monitor)
    if optimizer.decay == "all" or not optimizer.weight_decay:
        optimizer.decay = None
    trainer.tf32, model.weight_drop = trainer.tf32 or None, model.weight_drop or None
    config.data.items = (config.data.name != "lines" and config.data.items) or None
    config.data.noise, optimizer.average = config.data.noise or None, optimizer.average or None
    if model.dropout_mask == "step" or not (model.dropout or "model.dropout" in (config.chosen or ())):
        model.dropout_mask = None
    if not trainer.average_last_group or trainer.accumulate_grad_batches == 1:
        trainer.average_last_group = None
    return config


def graph_refusal(config: Config) -> str | None:
    """Return why a training step cannot be one CUDA graph, or None; whether a GPU exists is not checked."""
    trainer = config.trainer
    refusals = {
        f"trainer.accelerator={trainer.accelerator} has no CUDA graphs": trainer.accelerator in ("cpu", "mps"),
        "several processes exchange gradients within a step": trainer.processes > 1,
        "trainer.accumulate_grad_batches makes a step of several windows": trainer.accumulate_grad_batches > 1,
        "trainer.detect_anomaly reads every result": trainer.detect_anomaly,
        "optimizer=rmsprop reads the learning rate on the host": config.optimizer.name == "rmsprop",
    }
    return next((why for why, holds in refusals.items() if holds), None)


def _errors_in_name(config: Config) -> Iterator[str]:
    name, runs = config.name, Path(config.runs)
    above = next((place for place in (runs, *runs.parents) if os.path.lexists(place)), Path())
    if not os.path.isdir(above):
        yield f"runs={runs}: {above} is not a folder; name another place for the runs"
    parts = [] if name is None else name.split("/")
    if any("\0" in part or part in ("", ".", "..") or len(part.encode(errors="replace")) > 255 for part in parts):
        yield f"name={name!r}: expected the name of a folder inside of runs=, as my_run or group/my_run"
    elif wrong := [part for part in parts if part in NO_RUNS or part.startswith(".")]:
        yield f"name={name}: a folder {wrong[0]} is not searched for runs, so src.report would not find it; rename it"


def _errors_in_loggers(loggers: Mapping[str, Any]) -> Iterator[str]:
    """Yield loggers that are none of Lightning's or ours (a stored run must not import others), or not installed."""
    for name, node in loggers.items():
        target = node.get("_target_") if isinstance(node, Mapping) else None
        if target not in OUR_LOGGERS.values() and not re.fullmatch(r"lightning\.pytorch\.loggers\.\w+", str(target)):
            expected = f"lightning.pytorch.loggers.NAME, or an option of conf/logger: logger=[{name}]"
            yield f"logger.{name}._target_={target}: expected {expected}"
        elif (package := TRACKERS.get(str(target).rpartition(".")[2])) and not importlib.util.find_spec(package):
            yield f"logger={name} needs the extra {package}, which is not installed: pip install -e '.[{package}]'"


def _combinations(config: Config) -> Iterator[str]:
    """Yield what is wrong with keys that are each right by themselves."""
    model, optimizer, trainer = config.model, config.optimizer, config.trainer
    if model.name in GATED:
        for key, why in {"nonlinearity": "are sigmoid and tanh", "single_bias": "need both biases"}.items():
            if value := getattr(model, key):
                yield f"model.{key}={value} is not used by model={model.name}: its gates {why}; leave it out"
    for key in ("betas", "eps", "momentum", "nesterov", "alpha"):
        if getattr(optimizer, key) is not None and key not in OPTIMIZER_KEYS.get(optimizer.name, (key,)):
            has = ", ".join(("lr", "weight_decay", *OPTIMIZER_KEYS[optimizer.name]))
            yield f"optimizer.{key} is not used by optimizer={optimizer.name}, which has {has}"
    if optimizer.nesterov and not optimizer.momentum:
        yield "optimizer.nesterov=true needs optimizer.momentum above 0"
    one_layer = model.num_layers == 1 and "model.num_layers" not in (config.chosen or ())
    if model.dropout > 0 and one_layer and model.dropout_mask != "window":
        way = "use 2, dropout 0, or model.dropout_mask=window, which acts before the readout too"
        yield f"model.dropout={model.dropout} acts between layers, and there is one layer; {way}"
    if model.skip and one_layer:
        yield f"model.skip={model.skip} goes past layers, and there is one layer; use 2 or leave it out"
    for key, value in {"skip": model.skip, "readout_bias": model.readout_bias}.items():
        if value not in (None, "input") and model.readout == "identity":
            yield f"model.{key}={value} needs weights of a readout, and model.readout=identity has none; use linear"
    if optimizer.recurrent_lr is not None and model.readout == "identity":
        yield "optimizer.recurrent_lr is for all but the readout, which model.readout=identity lacks; use optimizer.lr"
    symbols = config.data.symbols
    if model.readout == "identity" and symbols is not None and len(symbols) != model.hidden_size:
        yield (
            f"model.readout=identity: the hidden state is the logits, so model.hidden_size={model.hidden_size} "
            f"must be the vocabulary's {len(symbols)}; set model.hidden_size={len(symbols)} or model.readout=linear"
        )
    for key, value in {"data.noise": config.data.noise, "model.readout_bias": model.readout_bias}.items():
        if value and (config.data.is_task or config.data.input is not None):
            yield f"{key}={value} is for texts only, not data={config.data.name}; leave it out"
    if config.budget and (config.data.is_task or config.data.input is not None):
        yield f"budget={config.budget}: the rule is for texts; with data={config.data.name} set the sizes yourself"
    if config.chosen and not config.budget:
        yield "chosen: it lists what a budget has chosen; leave it out"
    if trainer.precision in ("16-mixed", "16-true") and trainer.accelerator == "cpu":
        yield f"trainer.precision={trainer.precision} needs a GPU; on a CPU use bf16-mixed or 32-true"
    if trainer.precision == "16-true" and optimizer.name != "sgd":
        why = f"float16 cannot hold the squares of small gradients that optimizer={optimizer.name} keeps"
        yield f"trainer.precision=16-true: {why}; use 16-mixed, bf16-true, or optimizer=sgd"
    if refusal := graph_refusal(config) if trainer.cuda_graph is True else None:
        yield f"trainer.cuda_graph=true: {refusal}; use trainer.cuda_graph=auto"
    if trainer.min_epochs is not None and trainer.min_epochs > trainer.max_epochs:
        yield f"trainer.min_epochs={trainer.min_epochs}: expected at most trainer.max_epochs={trainer.max_epochs}"
