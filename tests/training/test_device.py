"""Training on a device that is not the CPU, as far as the CPU can tell: graphs of steps, nothing that waits, moves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from src.config.checks import errors_in_config, graph_refusal
from src.config.run_key import run_key
from src.config.schema import MODEL_CLASSES, ModelConfig, TrainerConfig
from src.errors import UserError
from src.models import cell, cuda, kernels
from src.models.language_model import build_model, detached, window_loss
from src.training import machine, module, run
from src.training.module import LanguageModule
from src.training.step_graph import StepGraph, parts_of
from tests.fake_graph import READS, Captures

COMMAND: dict[str, Any] = {"command": "test", "overrides": []}


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Captures:
    """A CPU that has CUDA graphs, and what else is different on a GPU: rates in memory, no check that reads ids."""
    captures = Captures()
    form = module.optimizer_form

    def on_gpu(name: str, device: torch.device, lr: float) -> dict[str, Any]:
        known = form(name, device, lr)
        return known | {"lr": torch.tensor(float(lr))} if "fused" in known else known

    monkeypatch.setattr(cuda, "capture", captures)
    monkeypatch.setattr(module, "optimizer_form", on_gpu)
    monkeypatch.setattr(LanguageModule, "reading_waits", lambda self: True)
    monkeypatch.setattr(kernels, "in_main_memory", lambda tensor: False)
    return captures


def captured(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    monkeypatch.setattr(LanguageModule, "step_graph", lambda own: StepGraph(own, True) if on else None)


def state_of(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True))


def numbers(folder: Path) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """The weights and the lines of a run, without the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    without_clock = [{k: v for k, v in one.items() if k != "seconds"} for one in lines]
    return list(state_of(folder)["state_dict"].values()), without_clock


def assert_same(one: Path, other: Path) -> None:
    (weights, lines), (their_weights, their_lines) = numbers(one), numbers(other)
    assert lines == their_lines
    assert all(torch.equal(a, b) for a, b in zip(weights, their_weights, strict=True))


CASES = {
    "stacked": ("model.num_layers=2", "model.dropout=0.3"),
    "cell": ("optimizer=sgd", "optimizer.momentum=0.9", "trainer.gradient_clip_val=null"),
    "manual": ("model.num_layers=2", "trainer.gradient_clip_algorithm=value", "loss.over_time=mean", "optimizer=adamw"),
    "lstm": (
        "data.reset=never",
        "trainer.precision=64-true",
        "scheduler=cosine",
        "scheduler.warmup_steps=10",
        "model.single_bias=false",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_of_graphs_is_the_run_without_to_the_bit(name, composed, captures, monkeypatch):
    folders = []
    for on in (False, True):
        captured(monkeypatch, on)
        folders.append(run.fit(composed(f"model={name}", *CASES[name], "trainer.max_epochs=2"), COMMAND))
    assert captures.captured == 1  # the short windows at the ends of an epoch are not
    assert captures.replayed > 45
    assert_same(*folders)


def test_a_run_of_graphs_resumes_to_the_bit(composed, captures, monkeypatch):
    words = "model.num_layers=2", "model.dropout=0.3", "trainer.deterministic=true"
    captured(monkeypatch, True)
    whole = run.fit(composed(*words, "trainer.max_epochs=2"), COMMAND)
    part = run.fit(composed(*words), COMMAND)
    group = state_of(part)["optimizer_states"][0]["param_groups"][0]
    assert isinstance(group["lr"], float)  # and not a number in the memory of a device
    assert not group["capturable"]
    run.resume(part, {"trainer.max_epochs": 2})
    assert_same(whole, part)
    torch.use_deterministic_algorithms(False)


def test_a_capture_that_fails_leaves_the_run_as_it_would_be_without(composed, captures, monkeypatch):
    folders = []
    for asked in (None, False):
        monkeypatch.setattr(LanguageModule, "step_graph",
                            lambda own, asked=asked: None if asked is None else StepGraph(own, asked))  # fmt: skip
        folders.append(run.fit(composed("model=cell"), COMMAND))
        monkeypatch.setattr(cell, "as_features", reading(cell.as_features))
    assert_same(*folders)
    said = (folders[1] / "train.log").read_text()
    assert "a step is not captured in a CUDA graph, the run goes on without: aten._local" in said
    monkeypatch.setattr(LanguageModule, "step_graph", lambda own: StepGraph(own, True))
    with pytest.raises(RuntimeError, match="reads a number on the host in a capture"):
        run.fit(composed("model=cell"), COMMAND)


def reading(function: Any) -> Any:
    def call(inputs: Tensor, *rest: Any) -> Tensor:
        assert inputs.max().item() >= 0
        return function(inputs, *rest)

    return call


class Reads(TorchDispatchMode):
    """Counts the numbers that are read on the host."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in READS
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Counts the calls that copy a tensor to the host."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.item)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["stacked", "cell", "manual"])
def test_between_two_written_steps_no_number_is_read(name, composed, captures, monkeypatch):
    found = []
    captured(monkeypatch, False)

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            self.step = trainer.global_step

        def on_train_batch_end(self, *_: Any) -> None:
            if self.step:
                found.append((self.step, reads.count + calls.count))
            reads.count = calls.count = 0

    words = f"model={name}", "trainer.log_every_n_steps=5", "callbacks=none", "trainer.max_steps=18", "logger=csv"
    with Reads() as reads, Calls() as calls:
        run.fit(composed(*words), COMMAND, also=[Watch()])
    waits = {step for step, count in found if count and step != 1}  # the first batch end also counts the start
    assert waits == {5, 10, 15}


def test_a_validation_reads_its_numbers_once(composed, captures, monkeypatch):
    captured(monkeypatch, False)
    seen = []

    class Watch(pl.Callback):
        def on_validation_batch_start(self, *_: Any) -> None:
            reads.count = calls.count = 0

        def on_validation_batch_end(self, *_: Any) -> None:
            seen.append(reads.count + calls.count)

    with Reads() as reads, Calls() as calls:
        run.fit(composed("data.evaluation_streams=2", "trainer.max_steps=3"), COMMAND, also=[Watch()])
    assert len(seen) > 1
    assert set(seen) == {0}


@pytest.mark.parametrize("target", MODEL_CLASSES)
def test_a_step_on_another_device_stays_on_it(target):
    """Torch's meta device has shapes and no numbers: reading one, or mixing devices, is an error."""
    config = ModelConfig(name="x", _target_=target, hidden_size=6, num_layers=2, dropout=0.5)
    model = build_model(config, 9).to("meta")
    ids = torch.zeros(12, 4, dtype=torch.int64, device="meta")
    state = None
    for _ in range(2):
        logits, state = model(ids, state)
        loss = window_loss(logits, ids, "mean")
        state = detached(state)
    loss.minimised.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    made = (*gradients, norm, loss.nats, loss.hits(), loss.mean(), loss.losses, *parts_of(state))
    assert {tensor.device.type for tensor in made} == {"meta"}
    assert len(gradients) == len(list(model.parameters()))


@pytest.fixture
def half(composed, captures, monkeypatch):
    """Runs in 16-mixed on the CPU, which the command refuses and Lightning would turn into bfloat16."""
    build = run.build_trainer

    def with_scaler(*arguments: Any) -> Any:
        built = build(*arguments)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=20)  # overflows at first
        built.trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        return built

    monkeypatch.setattr(run, "build_trainer", with_scaler)
    return lambda *words: composed("trainer.gradient_clip_val=0.2", "optimizer=adamw", *words)


@pytest.mark.parametrize("graph", [False, True])
def test_in_16_mixed_the_norm_is_unscaled_steps_that_overflow_are_skipped_and_the_scale_is_saved(
    graph, half, captures, monkeypatch
):
    captured(monkeypatch, graph)
    norms = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            norms.append(float(pl_module.grad_norm))

    whole = run.fit(half("trainer.max_epochs=3"), COMMAND, also=[Watch()])
    assert torch.tensor(norms[:3]).isfinite().logical_not().any()
    last = torch.tensor(norms[40:])
    assert last.isfinite().sum() > 30
    assert last[last.isfinite()].median() < 2
    part = run.fit(half(), COMMAND)
    scaled = state_of(part)["MixedPrecision"]
    assert 1 < scaled["scale"] < 2.0**40
    run.resume(part, {"trainer.max_epochs": 3})
    assert_same(whole, part)


def test_a_run_says_why_its_steps_are_no_graph(composed):
    assert graph_refusal(composed("trainer.accelerator=gpu")) is None
    for words, why in {
        ("trainer.accelerator=cpu",): "trainer.accelerator=cpu has no CUDA graphs",
        ("trainer.accelerator=gpu", "trainer.devices=2"): "several processes exchange gradients within a step",
        ("trainer.accelerator=gpu", "optimizer=rmsprop"): "optimizer=rmsprop reads the learning rate on the host",
        (
            "trainer.accelerator=gpu",
            "trainer.accumulate_grad_batches=2",
        ): "trainer.accumulate_grad_batches makes a step",
    }.items():
        config = composed(*words)
        assert str(graph_refusal(config)).startswith(why)
        config.trainer.cuda_graph = True
        (error,) = errors_in_config(config)
        assert error.startswith(f"trainer.cuda_graph=true: {why}")
        assert error.endswith("; use trainer.cuda_graph=auto")


def test_the_new_keys_leave_the_key_of_a_run_as_it_was(composed):
    plain = run_key(composed())
    assert run_key(composed("trainer.cuda_graph=false")) == plain == run_key(composed("trainer.tf32=false"))
    assert run_key(composed("trainer.tf32=true")) != plain
    assert run_key(composed("trainer.devices=1")) == plain
    assert type(composed("trainer.devices=2").trainer.devices) is int


def test_float16_weights_are_refused_where_they_cannot_work(composed):
    config = composed("trainer.accelerator=gpu", "optimizer=sgd")
    config.trainer.precision = "16-true"
    assert errors_in_config(config) == []
    config = composed("trainer.accelerator=gpu", "optimizer=adam")
    config.trainer.precision = "16-true"
    (error,) = errors_in_config(config)
    assert error.endswith("use 16-mixed, bf16-true, or optimizer=sgd")


def test_devices_auto_is_every_gpu_and_on_a_cpu_one_process(monkeypatch):
    monkeypatch.setattr(machine, "available_accelerators", lambda: {"cpu": 8, "gpu": 4})
    found = {
        a: machine.with_devices(TrainerConfig(accelerator=a, devices="auto")).devices for a in ("cpu", "gpu", "auto")
    }
    assert found == {"cpu": 1, "gpu": 4, "auto": 4}
    assert machine.with_devices(TrainerConfig(devices=3)).devices == 3
    with pytest.raises(UserError, match=r"trainer.devices=5: expected at most 4"):
        machine.check_machine(TrainerConfig(accelerator="auto", devices=5))


def test_on_a_gpu_a_run_leaves_cores_to_other_runs(composed, monkeypatch):
    threads: list[int] = []
    monkeypatch.setattr(run, "use_threads", threads.append)
    monkeypatch.setattr("src.process.available_cores", lambda: 16)
    for on_gpu, asked in ((False, "auto"), (True, "auto"), (True, "9")):
        monkeypatch.setattr(machine, "uses_cuda", lambda trainer, on_gpu=on_gpu: on_gpu)
        run.prepare(composed("model.hidden_size=300", f"trainer.threads={asked}"))
    torch.backends.cudnn.allow_tf32 = True  # torch's own
    assert threads == [16, 4, 9]


def test_a_gpu_is_set_up_for_what_the_configuration_says(monkeypatch):
    with pytest.raises(UserError, match=r"trainer.cuda_graph=true, but torch sees no CUDA GPU"):
        machine.check_machine(TrainerConfig(accelerator="auto", cuda_graph=True))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    trainer = TrainerConfig(accelerator="gpu", deterministic=True)
    machine.set_up_gpu(trainer)
    assert "CUBLAS_WORKSPACE_CONFIG" not in machine.os.environ  # there is no GPU here
    monkeypatch.setattr(machine, "uses_cuda", lambda trainer: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    for tf32 in (True, None):
        machine.set_up_gpu(dataclasses.replace(trainer, tf32=tf32))
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (bool(tf32),) * 2
    assert machine.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    torch.backends.cudnn.allow_tf32 = True  # torch's own
