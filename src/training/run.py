"""One run: check everything (`prepare`), make a folder, train, and record how it ended, whatever happens.

A new run (`fit`) and one that goes on from its newest checkpoint, to the bit (`resume`), both go through `prepare` and
`train`. The folder of a process with rank > 0 is NO_FOLDER, to which nothing is written.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from src.baselines import baselines, basis
from src.config.checks import graph_refusal
from src.config.schema import Config, from_plain, key_table, limited, set_value, to_plain
from src.data.batching import fitted
from src.data.corpus import Corpus, open_corpus
from src.data.vocabulary import Vocabulary
from src.diagnostics import build_diagnostics
from src.diagnostics.loggers import ScalarLogger, close_loggers, logger_class, open_loggers
from src.diagnostics.tensorboard import HParams
from src.errors import RunFailure, UserError, typed
from src.files import NO_FOLDER, disk_full, read_yaml, write_atomic
from src.inference.load import FORMAT, TrainedModel, check_weights, implementation_config, load
from src.models.convert import Layer, convert_, read_layers, write_layers
from src.models.gated import GRU, LSTM
from src.models.kernels import multiplies_bf16
from src.models.language_model import LanguageModel, build_model
from src.process import in_notebook, logging_to, signal_handlers, threads_for, use_threads
from src.training import machine
from src.training.budget import behind, choose
from src.training.checkpoint import AtomicCheckpointIO, Checkpoint, CheckpointCallback, newest_checkpoint, restore_files
from src.training.lightning_compat import run_to_the_end
from src.training.machine import peer_is_gone, rank, uses_cuda
from src.training.metrics_log import EarlyStopping, MetricsLog, PredictedString, ProgressBar
from src.training.module import LanguageModule, TextData
from src.training.run_record import Record, locked, new_folder, now, provenance
from src.training.signals import Interrupted, StopOnSignal

KEPT_BASELINES = ("uniform", "unigram", "ngram_5", "chance", "optimum")
# Keys of the `trainer` group that are used here, by `prepare` and by callbacks; Lightning's Trainer gets the others
OURS = {"threads", "profile", "max_time", "log_every_n_steps", "limit_train_batches", "overfit_batches",
        "average_last_group", "enable_progress_bar", "tf32", "cuda_graph"}  # fmt: skip
SIZES = ("num_layers", "hidden_size", "nonlinearity", "skip", "readout")  # of `model`, fixed by those of `init_from`
LN2 = math.log(2)  # nats of a bit
log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """All that a run needs before it has a folder."""

    config: Config  # resolved: a seed, absolute paths, the number of processes
    corpus: Corpus
    data: TextData
    module: LanguageModule
    steps_an_epoch: int


def prepare(
    config: Config, checkpoint: Checkpoint | None = None, trust: str | None = None, new: bool = True
) -> Prepared:
    """Check everything, open the text and build the model; nothing is written. `trust` is that of `check_class`."""
    trainer = machine.join(config.trainer)
    machine.check_machine(trainer)
    machine.set_up_gpu(trainer)
    machine.keep_memory()  # before a budget times steps, which are slower without
    for name, node in config.logger.items():
        logger_class(name, node)
    seed = machine.drawn_seed() if config.seed is None else config.seed
    config = dataclasses.replace(config, trainer=trainer, seed=seed)
    if trainer.cuda_graph is True and (refusal := graph_refusal(config)):  # by as many GPUs as there are
        raise UserError(f"trainer.cuda_graph=true: {refusal}; use trainer.cuda_graph=auto")
    source = source_of(config) if checkpoint is None else None
    start = checkpoint.content["unroll"].get("init_from") if checkpoint else None
    known = source.vocabulary if source else Vocabulary.from_plain(start["vocabulary"]) if start else None
    corpus = open_corpus(config.data, known)
    if checkpoint is None and new and config.chosen:  # else the choice is in the stored configuration, and stays
        config, lines = choose(config, corpus)
        trainer = config.trainer
        corpus = dataclasses.replace(corpus, notes=lines + corpus.notes)
    if checkpoint is None:
        windows, notes = fitted(config.data, corpus.splits["train"])
        config = dataclasses.replace(config, data=windows)
        if trainer.accelerator == "cpu" and trainer.precision.startswith("bf16") and not multiplies_bf16():
            slow = "this processor has no products in bfloat16 and imitates them, many times slower"
            notes += (f"trainer.precision={trainer.precision}: {slow}; trainer.precision=32-true is faster here",)
        corpus = dataclasses.replace(corpus, notes=corpus.notes + notes)
    size = len(corpus.vocabulary)
    machine.check_prompt(config.callbacks.text_samples, corpus.vocabulary)
    machine.check_monitor(config, corpus.splits)
    if source and source.config.model.readout == "identity" and size > len(source.vocabulary):
        fixed = "with model.readout=identity the vocabulary has the size of the hidden state, and cannot grow"
        raise UserError(f"data.unknown=extend: {fixed}; use data.unknown=error")
    config = config.with_absolute_paths()  # only now: the errors above name paths as the user typed them
    data = TextData(corpus, config.data, seed)
    data.limit = trainer.windows_an_epoch(len(data.windows(world_size=trainer.processes)))
    if checkpoint is None:
        machine.check_validation_comes(config, data.limit)
    threads = threads_for(trainer.threads, config.model.hidden_size, int(trainer.devices))
    if checkpoint and trainer.threads == "auto":
        threads = checkpoint.progress["threads"]  # with another number sums have other last digits
    elif trainer.threads == "auto" and machine.uses_cuda(trainer):
        threads = min(threads, 4)  # for figures only; with all cores each, runs side by side would slow down
    use_threads(threads)
    torch.manual_seed(seed)
    model = build_model(config.model, size, trust)  # nothing draws from torch's generator before it
    if trainer.precision.startswith("64"):
        model.double()  # before weights of init_from are copied, which would be rounded
    if config.model.readout_bias == "unigram":  # replaced by the weights of a checkpoint or of init_from
        counts = np.bincount(corpus.splits["train"].ids, minlength=size) + 1
        model.readout.bias.data = torch.from_numpy(np.log(counts / counts.sum())).to(next(model.parameters()).dtype)
    if rank() > 0:
        torch.manual_seed(seed + rank())  # dropout must not repeat itself in another process's columns
    if source:
        start = start_from(model, source, corpus.vocabulary)
    steps_an_epoch = math.ceil(data.limit / trainer.accumulate_grad_batches)
    identity = {"format": FORMAT, "config": to_plain(config), "corpus": corpus.key, "init_from": start}
    identity["vocabulary"] = corpus.vocabulary.to_plain()
    module = LanguageModule(model, config, trainer.run_steps(steps_an_epoch), identity)
    return Prepared(config, corpus, data, module, steps_an_epoch)


def fit(config: Config, command: Mapping[str, Any], folder: Path | None = None, also: Sequence[Callback] = ()) -> Path:
    """Train a new run and return its folder; every user error is found before the folder exists.

    `command` are entries for the record; a `folder` of None is a new one under `config.runs`; `also` are callbacks.
    Raises Interrupted if a signal has stopped the run, whose state is saved then.
    """
    prepared = prepare(config, trust=config.model._target_)  # composed on the command, or checked by stored_config
    record = Record(NO_FOLDER, {})
    if rank() == 0:
        # Before the folder: to count a long text takes a while, and a folder without a record cannot be resumed
        entries = {"status": "running", **describe(prepared), **command, **provenance()}
        if folder:
            folder.mkdir(parents=True)
        record = Record(folder or new_folder(Path(config.runs) / (config.name or "")), entries)
        write_config(record.folder, prepared.config)
        record.update()
    with locked(record.folder), logging_to(record.folder):
        return train(prepared, record, None, also)


def train(prepared: Prepared, record: Record, checkpoint: Checkpoint | None, also: Sequence[Callback] = ()) -> Path:
    """Run the trainer, from the start or from a checkpoint, and write into the record how it ended."""
    loggers: list[Logger] = []
    if rank() == 0:
        try:
            known = record.entries.get("loggers", {})
            loggers, record.entries["loggers"] = open_loggers(prepared.config, record.folder, known)
        except UserError as error:
            status = "stopped" if checkpoint else "failed"  # which a sweep goes on with, or archives
            record.update(status=status, finished=now(), error={"type": "UserError", "message": str(error)})
            raise
    built = build_trainer(prepared.config, record.folder, prepared.corpus, prepared.steps_an_epoch, loggers)
    built.trainer.callbacks.extend(also)  # type: ignore[attr-defined]
    with signal_handlers(built.signals.handlers):
        try:
            record.update()
            if rank() == 0:
                built.scalars.constant = {f"baseline/{name}": b for name, b in record.entries["baselines"].items()}
                say_start(record, prepared.corpus)
            path = checkpoint and checkpoint.path
            built.trainer.fit(prepared.module, datamodule=prepared.data, ckpt_path=path, weights_only=True)
        except BaseException as error:
            _ended_by(error, prepared, record, built)
            return record.folder
    finish(record, "done", prepared, built)
    if rank() == 0:  # the others have no record
        if prepared.config.budget and (late := behind(prepared.config, record.entries["seconds"])):
            log.warning("%s", late)
        say_end(record, prepared.config)
    return record.folder


class Built(NamedTuple):
    """A trainer, and those of its callbacks that a run itself uses."""

    trainer: pl.Trainer
    metrics: MetricsLog
    scalars: ScalarLogger
    signals: StopOnSignal


def build_trainer(config: Config, folder: Path, corpus: Corpus, an_epoch: int, loggers: Sequence[Logger] = ()) -> Built:
    """Build the trainer of a run in `folder`; `an_epoch` are its optimizer steps."""
    keys, checkpoint = config.trainer, config.checkpoint
    prints_predictions = config.callbacks.predicted_string.enabled
    stopper = EarlyStopping(config.early_stopping, checkpoint.monitor) if config.early_stopping.enabled else None
    metrics = MetricsLog(folder / "metrics.jsonl", checkpoint, prints_predictions, stopper)
    scalars = ScalarLogger(min(keys.log_every_n_steps, an_epoch))  # a short epoch too has a point
    checkpoints = CheckpointCallback(folder / "checkpoints", checkpoint, metrics) if checkpoint.enabled else None
    signals = StopOnSignal(checkpoints, keys.max_time)
    callbacks: list[Callback] = [signals, scalars, metrics]
    if prints_predictions:
        callbacks.append(PredictedString(corpus.vocabulary.decode))
    others = vars(config.callbacks).keys() - {"save_figures", "predicted_string"}
    if any(getattr(config.callbacks, name).enabled for name in others):
        callbacks += build_diagnostics(config, folder, metrics)
        # Diagnostics run first: step times exclude them; metrics.jsonl, then HParams, include their numbers
        callbacks.sort(key=lambda one: isinstance(one, ScalarLogger | MetricsLog) + 2 * isinstance(one, HParams))
    if keys.profile:
        from src.diagnostics.diagnostic import ProfilerCallback

        callbacks.append(ProfilerCallback(folder / "trace.json"))
    callbacks += [one for one in (stopper, checkpoints) if one]  # checkpoints last: they store the state of the others
    if keys.enable_progress_bar and (sys.stdout.isatty() or in_notebook()) and not prints_predictions:
        callbacks.append(ProgressBar(keys.run_steps(an_epoch)))
    given = {key: value for key, value in vars(keys).items() if key not in OURS}
    if uses_cuda(keys) and keys.processes > 1:  # NCCL between the GPUs; what the processes agree on goes by gloo
        given["strategy"] = DDPStrategy(process_group_backend="cpu:gloo,cuda:nccl")
    val = TextData(corpus, config.data, 0).val_windows()
    given["limit_val_batches"] = 0 if val is None else limited(len(val), keys.limit_val_batches)
    trainer = pl.Trainer(
        **given, callbacks=callbacks, logger=list(loggers), plugins=[AtomicCheckpointIO()], default_root_dir=folder,
        log_every_n_steps=1,  # Lightning's own cadence; ours is that of `ScalarLogger`
        enable_progress_bar=False,  # ours is a callback
        enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False, num_sanity_val_steps=0,
    )  # fmt: skip
    run_to_the_end(trainer, lambda: metrics.close(trainer), checkpoints)
    return Built(trainer, metrics, scalars, signals)


def say_start(record: Record, corpus: Corpus) -> None:
    """Log what is trained, and the baselines to compare with."""
    known = record.entries
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in corpus.splits.items())
    data = f"{known['data']} (vocabulary of {known['vocab_size']}; {sizes})"
    model = f"{known['parameters']:,} parameters, seed {known['seed']}, in {record.folder}"
    floors = {name.replace("ngram_5", "5-gram"): bits * LN2 for name, bits in known["baselines"].items()}
    baselines = ", ".join(f"{name} {nats:.3f}" for name, nats in floors.items())
    partial = f" ({known['baselines_basis']})" if known.get("baselines_basis") else ""
    shown = f"baselines (nats per character, as all losses below): {baselines}{partial}"
    for line in (f"{known['model']} on {data}: {model}", *corpus.notes, shown):
        log.info("%s", line)


def say_end(record: Record, config: Config) -> None:
    """Log how good the run is, in nats per character, and the next commands (not for a run of a sweep or a search)."""
    known, folder = record.entries, record.folder
    nats = {name: bits * LN2 for name, bits in known.get("baselines", {}).items()}
    best, last = known["metrics"]["best"] or {}, known["metrics"]["final"]
    alone, worse = not known.keys() & {"key", "trial"} and config.data.name != "hello", known["worse_than_uniform"]
    lowest = best.get("val/cross_entropy", math.inf)
    if math.isfinite(lowest):
        names = {"ngram_5": "counted 5-gram", "chance": "level of chance", "uniform": "uniform guess"}
        name, rival = next((name, nats[key]) for key, name in names.items() if key in nats)
        side = f"{abs(lowest - rival):.2f} {'above' if lowest > rival else 'below'} the {name} ({rival:.3f})"
        way = "rerun" if config.scheduler.name == "cosine" else "resume"  # after a cosine's end the rate is 0
        again = " ".join(f"trainer.{key}={2 * value}" for key, value in config.trainer.limits.items())
        more = f"; to train longer: python -m src.train {shlex.quote(f'{way}={folder}')} {again}"
        more = more if lowest > rival and alone and not worse else ""
        if alone and lowest + 0.02 < (end := last.get("val/cross_entropy", lowest)):
            more = f"; it was {end:.4f} at the end: fewer epochs, a smaller network or dropout may help"
        log.info("best val %.4f nats per character, at step %d: %s%s", lowest, best["step"], side, more)
    if worse:
        end = last.get("val/cross_entropy", last.get("train/cross_entropy", math.nan))
        diverged = not end < 1.1 * nats["uniform"] or lowest < nats["uniform"]
        remedy = (
            "diverged; try a smaller optimizer.lr or trainer.gradient_clip_val=1"
            if diverged
            else "hardly begun; train longer"
        )
        what = f"the loss at the end, {end:.4f}, is worse than a uniform guess, {nats['uniform']:.3f}"
        log.warning("%s: the run has %s", what, remedy)
    elif alone:
        run = "last" if config.runs == "runs" and Path("runs") in folder.parents else folder
        log.info("sample: python -m src.sample %s length=500 temperature=0.8", shlex.quote(f"run={run}"))
    log.info("%s in %.1f s: %s", "worse than a uniform guess" if worse else "done", known["seconds"], folder)


def _ended_by(error: BaseException, prepared: Prepared, record: Record, built: Built) -> None:
    """Record an end other than the planned one, and raise what makes the exit code of the process."""
    folder, gone = record.folder, built.trainer.world_size > 1 and peer_is_gone(error)
    full = disk_full(error, folder)
    stopped = gone or isinstance(error, Interrupted | KeyboardInterrupt)
    failed = None if stopped else {"type": type(full or error).__name__, "message": str(full or error)}
    if failed:
        log.error("%s", traceback.format_exc().rstrip(), extra={"only_in_the_file": True})  # Python prints it as well
    finish(record, "stopped" if stopped else "failed", prepared, built, failed)
    if rank() > 0 and (gone or isinstance(error, Interrupted | RunFailure)):
        sys.exit(int(gone))  # on the other reasons all processes have agreed, and process 0 reports them
    again = f"python -m src.train {shlex.quote(f'resume={folder}')}"
    if gone:
        raise RunFailure(f"another process of the run has died; to go on: {again}") from error
    if full:
        raise RunFailure(f"{full.filename}: {full.strerror}; free some space, then go on: {again}") from error
    if stopped:
        saved = (folder / "checkpoints" / "last.ckpt").exists()
        way = "to go on" if saved else "no checkpoint was written, so it starts again"
        log.info("stopped at step %d; %s: %s", record.entries["steps"], way, again)
    if not (isinstance(error, Interrupted) and error.signum is None):  # a pruned trial is no error
        raise error


def finish(record: Record, status: str, prepared: Prepared, built: Built, error: Any = None) -> None:
    """Write into the record how the run ended, and what it had reached."""
    trainer, metrics, final = built.trainer, built.metrics, built.metrics.final
    bits = final.get("val/bits_per_character", final.get("train/bits_per_character", 0.0))
    record.update(
        status=status, finished=now(), seconds=round(metrics.seconds, 3), steps=trainer.global_step,
        epochs=trainer.fit_loop.epoch_progress.current.completed, characters=int(prepared.module.characters),
        metrics={"final": {**built.scalars.latest, **final}, "best": metrics.best},
        **({"gpu": machine.gpu_description()} if machine.uses_cuda(prepared.config.trainer) else {}),
        worse_than_uniform=not bits <= record.entries.get("baselines", {}).get("uniform", math.inf),  # nan too
        error=error,
    )  # fmt: skip
    close_loggers(trainer.loggers, status)


def write_config(folder: Path, config: Config) -> None:
    """Write config.yaml."""
    write_atomic(folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True))


def describe(prepared: Prepared) -> dict[str, Any]:
    """Return the record's entries on a run before its first step; baselines are in bits per character."""
    config, corpus = prepared.config, prepared.corpus
    known = baselines(corpus) if "val" in corpus.splits else {"uniform": math.log2(len(corpus.vocabulary))}
    return {
        "name": config.name, "experiment": config.experiment, "model": config.model.name, "data": config.data.name,
        "seed": config.seed, "parameters": sum(p.numel() for p in prepared.module.parameters() if p.requires_grad),
        "vocab_size": len(corpus.vocabulary),
        "baselines": {name: max(0.0, known[name]) for name in KEPT_BASELINES if name in known},
        "baselines_basis": basis(corpus), "windows": prepared.data.described(), "data_provenance": corpus.provenance,
        "init_from": prepared.module.identity["init_from"], "error": None,
    }  # fmt: skip


def resume(folder: Path, changes: Mapping[str, Any] | None = None, trust: str | None = None) -> Path:
    """Resume a run in its folder; a finished run without new limits is left unchanged.

    `changes` are dotted keys with `may_change`, and their values; `trust` as in `prepare`. Raises Interrupted as `fit`.
    """
    try:
        record, changes = Record.read(folder), dict(changes or {})
        config: Config = from_plain(read_yaml(folder / "config.yaml"))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} is no run: expected run.json and config.yaml in it ({error})") from error
    if odd := [file for file in folder.glob("metrics.*") if not file.is_file()]:
        raise UserError(f"{odd[0]} is a folder, a pipe or a device, not a file; remove it to go on")
    free = [key for key, about in key_table().items() if about.may_change]
    if refused := [key for key in changes if not any(f"{key}.".startswith(f"{one}.") for one in free)]:
        way = "to start a new one from its weights: init_from=RUN"
        raise UserError(*(f"{key} cannot change in a run that goes on; {way} {key}=..." for key in refused))
    for key, value in changes.items():
        set_value(config, key, value)
    own = folder if rank() == 0 else NO_FOLDER
    with locked(own), logging_to(own):
        checkpoint, done = newest_checkpoint(folder), record.entries["status"] == "done"
        longer = " ".join(f"trainer.{key}=N" for key in config.trainer.limits)
        if done and not changes:
            log.info("%s is done; to go on: %s %s (or max_time)", folder, shlex.quote(f"resume={folder}"), longer)
            return folder
        if done and checkpoint is None:
            raise UserError(f"{folder} is done and has no last.ckpt to go on from; to train it anew: rerun={folder}")
        prepared = prepare(config, checkpoint, trust, new="baselines" not in record.entries)
        check_text(prepared, record, checkpoint)
        if checkpoint:
            check_goes_on(prepared, checkpoint)
            all_made = checkpoint.step >= config.trainer.run_steps(prepared.steps_an_epoch)
            waited, early = checkpoint.state("early_stopping").get("lines", 0), config.early_stopping
            if done and (all_made or (early.enabled and waited >= early.patience)):
                remedy = longer if all_made else "early_stopping.enabled=false"
                log.info("%s is done and left as it is, at step %d; for more: %s", folder, checkpoint.step, remedy)
                return folder
        record.folder = own
        if rank() == 0:
            set_back(record, prepared, checkpoint, changes)
        return train(prepared, record, checkpoint)


def check_text(prepared: Prepared, record: Record, checkpoint: Checkpoint | None) -> None:
    """Raise UserError if the text has changed; before the first checkpoint it is compared with the record."""
    known = record.entries.get("data_provenance", {})  # without a key: data=hello and the tasks, which cannot change
    stored = checkpoint.content["unroll"] if checkpoint else {"corpus": known.get("key")}
    for what in ("vocabulary", "corpus"):
        if stored.get(what) not in (None, prepared.module.identity[what]):
            where, way = (checkpoint.path, " with init_from=") if checkpoint else (record.folder, "")
            remedy = f"put the old text back, or start a new run{way}"
            raise UserError(f"the {what} is not the one in {where}: the text has changed since; {remedy}")


def check_goes_on(prepared: Prepared, checkpoint: Checkpoint) -> None:
    """Raise UserError for other weights or another number of processes than the run had, or a limit that it passed."""
    trainer, step, stored = prepared.config.trainer, checkpoint.step, len(checkpoint.progress["ranks"])
    try:
        check_weights(prepared.module, checkpoint.content["state_dict"])
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}") from error
    if trainer.processes != stored:  # other streams, other sums
        other = f"{trainer.processes} would not go on exactly; resume it with {stored}"
        raise UserError(f"the number of processes was {stored} in this run, and {other}")
    epochs = math.ceil(step / prepared.steps_an_epoch)  # one that has begun counts
    for what, limit, reached in (("epochs", trainer.max_epochs, epochs), ("steps", trainer.max_steps, step)):
        if 0 <= limit < reached:
            raise UserError(f"trainer.max_{what}={limit}: {reached} {what} are trained already; give {reached} or more")


def set_back(record: Record, prepared: Prepared, checkpoint: Checkpoint | None, changes: Mapping[str, Any]) -> None:
    """Set the files of a run back to its checkpoint, and write into the record that it goes on."""
    step, changed = 0, "".join(f"; {key} is now {typed(value)}" for key, value in changes.items())
    if checkpoint:
        step, config, horizon = checkpoint.step, prepared.config, checkpoint.progress["schedule"]["total_steps"]
        if config.scheduler.name == "cosine" and horizon < config.trainer.run_steps(prepared.steps_an_epoch):
            rate = config.optimizer.lr * config.scheduler.final_fraction
            changed += f"; the schedule ends at step {horizon}, that of the first start: its last rate is {rate:g}"
    if "baselines" not in record.entries:  # it failed before its first step
        record.entries = describe(prepared) | record.entries
    before = {key: record.entries.get(key) for key in ("status", "started", "process", "git")}
    resumed = [{"from_step": step, "at": now(), "changes": changes, "before": before}]
    record.entries |= provenance() | {"started": before["started"], "status": "running", "error": None}
    record.update(resumed=record.entries.get("resumed", []) + resumed)  # before files change: it is not done now
    restore_files(record.folder, checkpoint)
    write_config(record.folder, prepared.config)
    log.info("going on from %s at step %d%s", checkpoint.path.name if checkpoint else "the start", step, changed)


def source_of(config: Config) -> TrainedModel | None:
    """Return the model that a run starts from, or None; UserError for none there, other sizes or other equations."""
    if config.init_from is None:
        return None
    source = load(config.init_from, trust=config.model._target_)
    asked, given = config.model, source.config.model
    if asked._target_ != given._target_:
        implementation_config(given, asked.name)
    weights = f"the weights of init_from={config.init_from} have"
    sizes = [(key, typed(getattr(asked, key)), typed(getattr(given, key))) for key in SIZES]
    if wrong := [f"model.{key}={new}: {weights} {old}; leave it out" for key, new, old in sizes if new != old]:
        raise UserError(*wrong)
    return source


def start_from(model: LanguageModel, source: TrainedModel, vocabulary: Vocabulary) -> dict[str, Any]:
    """Copy the weights of `source` into a new model; return the entry for run.json."""
    known, old = len(source.vocabulary), source.model.to(next(model.parameters()).dtype)
    if known == len(vocabulary):
        convert_(model, old)
    else:
        assert isinstance(model.readout, nn.Linear) and isinstance(old.readout, nn.Linear)
        with torch.no_grad():
            model.readout.weight[:known] = old.readout.weight
            model.readout.bias[:known] = old.readout.bias
            _extend_recurrence(model.recurrence, old.recurrence)
    return {
        "path": str(source.path), "model": source.config.model.name, **source.progress,
        "vocabulary": source.vocabulary.to_plain(), "characters_added": list(vocabulary.symbols[known:]),
    }  # fmt: skip


def _extend_recurrence(into: nn.Module, source: nn.Module) -> None:
    """Copy a recurrence; each U that reads characters, as its last columns, keeps those drawn for the new ones."""

    def extended(known: Tensor, drawn: Tensor) -> Tensor:
        return torch.cat([known, drawn[:, known.size(1) :]], dim=1) if known.dim() > 1 else known

    if isinstance(into, GRU | LSTM):
        drawn = into.state_dict()
        into.load_state_dict({name: extended(known, drawn[name]) for name, known in source.state_dict().items()})
        return
    try:
        layers = zip(read_layers(source), read_layers(into), strict=True)
    except TypeError as error:
        raise UserError(f"data.unknown=extend: {error}; use data.unknown=error") from error
    write_layers(into, [Layer(extended(U, new.U), W, b) for (U, W, b), new in layers])
