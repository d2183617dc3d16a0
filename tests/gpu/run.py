"""`make gpu`: all that only a CUDA GPU can decide, in under eight minutes; each part writes a JSON file into `out`.

    python -m tests.gpu.run [parts=abcde] [data.root=FOLDER] [out=gpu_results] [device=cpu]

a  every model makes the preset's first 50 steps in float32, as a CUDA graph and without: losses as on the CPU
b  a killed run resumes to the bit; a run of the CPU goes on on the GPU, and back
c  python -m src.benchmark on the GPU, with the algorithm that cuDNN is asked for
d  both Tiny Shakespeare presets, and the wider one on cuDNN in float16
e  a transformer of nanoGPT's size, for up to two minutes: when does each reach 1.4697 nats?

`device=cpu` runs the same program at tiny sizes where there is no GPU, and measures nothing of interest. Needs torch
2.11 or newer, and what `python -m src.train` imports.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # part b is deterministic; read when cuBLAS starts

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 470.0  # of all parts together; the rest of eight minutes is for starting
LIMITS = {"a": 100.0, "b": 80.0, "c": 100.0, "d": 120.0, "e": 125.0}  # of each; a part that ends early leaves its rest
MODELS = ("cell", "stacked", "manual", "lstm", "gru")
TOLERANCE = 2e-3  # nats, of a loss on the GPU against the same on the CPU
TARGET = 1.4697  # nats a character on Tiny Shakespeare's validation: nanoGPT's transformer of 10.7 million parameters
COMMAND: dict[str, Any] = {"command": "make gpu", "overrides": []}
Report = dict[str, Any]


class Settings:
    """The command line, and what follows from it."""

    def __init__(self, words: Sequence[str]) -> None:
        given = dict(word.split("=", 1) for word in words)
        self.parts = given.pop("parts", "abcde")
        self.out = Path(given.pop("out", "gpu_results"))
        self.on_gpu = given.pop("device", "cuda") != "cpu"
        self.root = given.pop("data.root", None)
        if given:
            raise SystemExit(f"{', '.join(given)}: expected parts=, data.root=, out= or device=cpu")
        self.accelerator, self.device = ("gpu", "cuda") if self.on_gpu else ("cpu", "cpu")
        if self.root is None:
            places = (ROOT / "shared" / "data", ROOT.parent / "shared" / "data")
            self.root = next((str(place) for place in places if place.exists()), None)

    def words(self, *more: str) -> list[str]:
        """Return overrides of a quiet run on Tiny Shakespeare; at `device=cpu` a tiny one on a text of its own."""
        words = ["callbacks=none", "logger=none", "checkpoint.enabled=false", "trainer.enable_progress_bar=false"]
        words += ["trainer.threads=auto" if self.on_gpu else "trainer.threads=1"]
        if self.on_gpu:
            words += [f"data.root={self.root}"] * (self.root is not None)
            return [*more, *words]
        drop = ("experiment=", "data=", "model.hidden_size=", "trainer.max_steps=", "trainer.precision=")
        tiny = ["data=text", f"data.path={self.text()}", "model.hidden_size=8", "data.seq_len=8", "data.batch_size=4"]
        tiny += ["model.num_layers=2", "trainer.max_steps=12", "trainer.max_epochs=20"]
        given = {word.partition("=")[0]: word for word in [*tiny, *(w for w in more if not w.startswith(drop)), *words]}
        return list(given.values())

    def text(self) -> Path:
        path = self.out / "text.txt"
        if not path.exists():
            path.write_text("the quick brown fox jumps over the lazy dog; " * 20)
        return path


def composed(words: Sequence[str]) -> Any:
    """Return the checked configuration of these overrides."""
    from src.config.checks import errors_in_config
    from src.config.compose import compose, to_config

    config = to_config(compose(list(words)))
    if errors := errors_in_config(config):
        raise SystemExit("\n".join(errors))
    config.name = None
    return config


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def quietly(settings: Settings) -> Iterator[None]:
    """Write what the commands inside print into runs.log."""
    with (settings.out / "runs.log").open("a") as file, contextlib.redirect_stdout(file):
        yield


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return rows of cells as a Markdown table; the first one is the head."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def first_losses(settings: Settings, words: Sequence[str]) -> tuple[list[float], int]:
    """Return the loss of each step of a run, and how many shapes of window were captured as a graph."""
    from lightning.pytorch.callbacks import Callback

    from src.training.run import fit

    class Losses(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.found: list[torch.Tensor] = []

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.found.append(pl_module.outcome.minimised.detach().clone())
            self.graphs = 0 if pl_module.graph is None else len(pl_module.graph.captured)

    watch = Losses()
    with tempfile.TemporaryDirectory(prefix="unroll-gpu-") as folder, quietly(settings):
        fit(composed([*words, f"runs={folder}"]), COMMAND, also=[watch])
    return [float(loss) for loss in watch.found], watch.graphs


def loops_captured() -> dict[str, int]:
    """Return how many loops of model=manual became a graph, and how many could not."""
    from src.models.cuda import captured_loops

    done = [loop is not None for loop in captured_loops.values()]
    return {"captured": sum(done), "failed": len(done) - sum(done)}


def walk_error(device: str) -> float:
    """Return the largest relative error of a layer of `manual` in float32, its values and gradients against float64."""
    from src.models.bptt import recurrence, reference

    worst = 0.0
    for units, (nonlinearity, reverse) in itertools.product((7, 64, 128, 200, 300), (("tanh", False), ("relu", True))):
        torch.manual_seed(units)
        shapes = (19, 3, 5), (units, 5 + units), (units,), (3, units)
        leaves = [torch.randn(shape, dtype=torch.float64) / units**0.5 for shape in shapes]
        found = []
        for function, where, dtype in ((recurrence, device, torch.float32), (reference, "cpu", torch.float64)):
            own = [leaf.to(where, dtype).requires_grad_() for leaf in leaves]
            hidden, h_n = function(*own, nonlinearity, reverse)
            (hidden.sin().sum() + h_n.sum()).backward()
            found.append([hidden.detach(), *(leaf.grad for leaf in own)])
        for value, truth in zip(*found, strict=True):
            worst = max(worst, float((value.cpu() - truth).abs().max() / truth.abs().max()))
    return worst


def part_a(settings: Settings, left: Callable[[], float]) -> Report:
    found: Report = {"tolerance": TOLERANCE, "models": {}, "walk_error": walk_error(settings.device)}
    say(f"  a layer of manual against float64, values and gradients: {found['walk_error']:.1e}")
    for model in MODELS if settings.on_gpu else ("manual",):
        if left() < 10:
            found["models"][model] = {"skipped": "no time left"}
            continue
        words = ["trainer.max_steps=50", "trainer.precision=32-true", "trainer.limit_val_batches=1", "model.dropout=0"]
        words = settings.words("experiment=tiny_shakespeare", f"model={model}", *words)
        if model in ("lstm", "gru"):
            words += ["model.single_bias=false"]
        expected, _ = first_losses(settings, [*words, "trainer.accelerator=cpu"])
        words += [f"trainer.accelerator={settings.accelerator}"]
        ours: dict[str, Any] = {}
        ours["auto"], graphs = first_losses(settings, [*words, "trainer.cuda_graph=auto"])
        ours["false"], _ = first_losses(settings, [*words, "trainer.cuda_graph=false"])
        errors = {g: max(abs(a - b) for a, b in zip(losses, expected, strict=True)) for g, losses in ours.items()}
        between = max(abs(a - b) for a, b in zip(ours["auto"], ours["false"], strict=True))
        good = all(error <= TOLERANCE for error in errors.values()) and (graphs > 0 or not settings.on_gpu)
        known = {"error_graph": errors["auto"], "error_plain": errors["false"], "graph_against_plain": between}
        found["models"][model] = known | {"graphs": graphs, "steps": len(expected), "loss": expected[-1], "ok": good}
        plain = f"{errors['false']:.1e} without; between the two {between:.1e}"
        say(f"  {model}: against the CPU {errors['auto']:.1e} as a graph ({graphs} captured), {plain}")
    found["loops"] = loops_captured()
    say(f"  loops over time of manual: {found['loops']}")
    found["ok"] = found["walk_error"] < 1e-5 and all(one.get("ok", False) for one in found["models"].values())
    return found


def weights_of(run: Path) -> dict[str, Any]:
    return dict(torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"])


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def killed(words: Sequence[str]) -> None:
    """Train a run, in the folder of the first word, that dies at the step of the second one, as by SIGKILL."""
    from lightning.pytorch.callbacks import Callback

    from src.training.run import fit

    class Kill(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == int(words[1]):
                os.kill(os.getpid(), signal.SIGKILL)

    fit(composed(words[2:]), COMMAND, Path(words[0]), also=[Kill()])


def part_b(settings: Settings, left: Callable[[], float]) -> Report:
    from src.training.run import fit, resume

    half = "model=stacked", "trainer.precision=16-mixed"
    cases = {
        "manual, 32-true": ["model=manual", "trainer.precision=32-true"],
        "stacked, 16-mixed, dropout": [*half, "model.dropout=0.2", "model.hidden_size=512"],
    }
    if not settings.on_gpu:
        cases = {"manual, dropout": ["model=manual", "model.dropout=0.2"]}
    found: Report = {"cases": {}}
    steps, every, dies = (200, 40, 130) if settings.on_gpu else (12, 4, 10)
    common = settings.words("experiment=tiny_shakespeare", f"trainer.max_steps={steps}", "trainer.limit_val_batches=1")
    common += [f"trainer.max_steps={steps}", "trainer.deterministic=true", f"checkpoint.every_n_steps={every}"]
    common = [word for word in {w.partition("=")[0]: w for w in common}.values() if word != "checkpoint.enabled=false"]
    for name, words in cases.items():
        if left() < 15:
            found["cases"][name] = {"skipped": "no time left"}
            continue

        words = [*common, *words, f"trainer.accelerator={settings.accelerator}"]
        with tempfile.TemporaryDirectory(prefix="unroll-gpu-") as place:
            with quietly(settings):
                whole = fit(composed(words), COMMAND, Path(place) / "whole")
            run = Path(place) / "killed"
            command = [sys.executable, "-m", "tests.gpu.run", "--killed", str(run), str(dies), *words]
            ended = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=max(20.0, left()), check=False
            )
            if ended.returncode != -signal.SIGKILL:
                raise RuntimeError(f"the run to be killed ended with {ended.returncode}: {ended.stderr[-1500:]}")
            with quietly(settings):
                resume(run)
            same = equal(weights_of(whole), weights_of(run))
        found["cases"][name] = {"to_the_bit": same, "steps": steps, "killed_at": dies, "ok": same}
        say(f"  {name}: killed at step {dies}, resumed: {'equal to the bit' if same else 'NOT equal'}")
    with tempfile.TemporaryDirectory(prefix="unroll-gpu-") as place:
        third = steps // 3
        words = [word for word in common if not word.startswith(("trainer.max_steps", "trainer.deterministic"))]
        words += [f"trainer.max_steps={third}", "trainer.accelerator=cpu", "model=stacked", "trainer.precision=32-true"]
        with quietly(settings):
            run = fit(composed(words), COMMAND, Path(place) / "moved")
            resume(run, {"trainer.accelerator": settings.accelerator, "trainer.max_steps": 2 * third})
            resume(run, {"trainer.accelerator": "cpu", "trainer.max_steps": 3 * third})
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        there = json.loads((run / "run.json").read_text())["steps"] == 3 * third
        found["moved"] = {
            "val": lines[-1].get("val/cross_entropy"),
            "ok": there and math.isfinite(lines[-1]["val/cross_entropy"]),
        }
        say(f"  a run of the CPU went on on the GPU and back: {lines[-1]['val/cross_entropy']:.3f} nats on val")
    found["ok"] = found["moved"]["ok"] and all(one.get("ok", False) for one in found["cases"].values())
    return found


def part_c(settings: Settings, left: Callable[[], float]) -> Report:
    from src.benchmarks.models import SIZES, Size, models_table, run_models
    from src.config.schema import BenchmarkOptions

    precisions = ("", "_tf32", "_bf16", "_fp16")
    models = [f"{model}{precision}" for model in ("stacked", "manual", "lstm") for precision in precisions]
    models = models if settings.on_gpu else ["stacked", "manual_bf16"]
    presets = [Size(448, 2, 32, 64), Size(512, 2, 32, 64), Size(640, 2, 32, 64)]
    sizes = [*SIZES, *presets] if settings.on_gpu else [Size(8, 2, 4, 4)]
    found: Report = {"sizes": [], "marks": {}}
    for size in sizes:
        if left() < 8:
            say(f"  {size}: no time left")
            continue
        keys = {key: getattr(size, key) for key in size._fields}
        options = BenchmarkOptions("models", models=[one for one in models if size not in presets or "lstm" not in one],
                                   repeats=3, memory=False, exactness=False, accelerator=settings.accelerator,
                                   rate_size=4096 if settings.on_gpu else 64, **keys)  # fmt: skip
        for result in run_models(options):
            found["sizes"].append(result)
            say("\n".join(models_table(result)))
            measured = {name: one["median_ms"] for name, one in result["models"].items()}
            plain = measured["stacked"]
            fastest = min((name for name in measured if name.startswith("stacked")), key=measured.__getitem__)
            found["marks"][str(size)] = {"stacked_ms": plain, "fastest_stacked": fastest,
                                         "times": plain / measured[fastest]}  # fmt: skip
            if "manual+graph" in measured:
                found["marks"][str(size)]["manual_against_stacked"] = (
                    measured["stacked+graph"] / measured["manual+graph"]
                )
    found["flashrnn"] = flashrnn_number(settings)
    say(f"  FlashRNN: {found['flashrnn']}")
    found["ok"] = len(found["sizes"]) == len(sizes)
    return found


def flashrnn_number(settings: Settings) -> Report | str:
    """Return microseconds a step of FlashRNN's Elman layer, forward and backward, if the package is installed."""
    try:
        from flashrnn import flashrnn  # type: ignore[import-not-found]

        B, T, D = 64, 100, 512
        shapes = {"Wx": (B, T, 1, 1, D), "R": (1, 1, D, D), "b": (1, 1, D), "h": (1, B, 1, 1, D)}
        made = {name: (0.02 * torch.randn(shape, device=settings.device)).bfloat16().requires_grad_()
                for name, shape in shapes.items()}  # fmt: skip

        def step() -> None:
            states, _ = flashrnn(
                made["Wx"], made["R"], made["b"], states=made["h"], function="elman", backend="cuda_fused"
            )
            states[0].sum().backward()
            torch.cuda.synchronize()

        for _ in range(3):
            step()
        started = time.perf_counter()
        for _ in range(20):
            step()
        return {
            "size": f"{D} units, {T} steps x {B}, bf16",
            "us_a_step": (time.perf_counter() - started) / 20 / T * 1e6,
        }
    except ImportError:
        return "not installed"
    except Exception as error:  # it compiles its kernels on the spot, and only gives a number to compare with
        return f"{type(error).__name__}: {str(error)[:300]}"


def curve(run: Path) -> list[tuple[float, float]]:
    """Return (seconds, nats on val) of each validation."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["seconds"], line["val/cross_entropy"]) for line in lines if "val/cross_entropy" in line]


def when(points: Sequence[tuple[float, float]], nats: float) -> float | None:
    """Return the seconds at the first point at or below a loss."""
    return next((seconds for seconds, value in points if value <= nats), None)


def part_d(settings: Settings, left: Callable[[], float]) -> Report:
    from src.training.run import fit

    half = "trainer.precision=16-mixed"
    runs = {
        "tiny_shakespeare": ["experiment=tiny_shakespeare"],
        "tiny_shakespeare_10min": ["experiment=tiny_shakespeare_10min"],
        "tiny_shakespeare_10min, stacked in float16": ["experiment=tiny_shakespeare_10min", "model=stacked", half],
    }
    found: Report = {"runs": {}}
    for name, words in runs.items():
        if left() < 10:
            found["runs"][name] = {"skipped": "no time left"}
            continue
        seconds = int(max(5, min(60, left() - 5)))
        words = settings.words(*words, f"trainer.accelerator={settings.accelerator}",
                               f"trainer.max_time=00:{seconds // 60:02d}:{seconds % 60:02d}")  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="unroll-gpu-") as place:
            with quietly(settings):
                run = fit(composed(words), COMMAND, Path(place) / "run")
            record, points = json.loads((run / "run.json").read_text()), curve(run)
        best = min(value for _, value in points)
        found["runs"][name] = {"seconds": record["seconds"], "steps": record["steps"], "best": best, "curve": points,
                               "seconds_to_1.475": when(points, 1.475), "seconds_to_target": when(points, TARGET),
                               "gpu": record.get("gpu")}  # fmt: skip
        say(f"  {name}: {best:.4f} nats, {record['steps']} steps in {record['seconds']:.1f} s; "
            f"1.475 after {when(points, 1.475)} s")  # fmt: skip
    found["ok"] = all("best" in one and math.isfinite(one["best"]) for one in found["runs"].values())
    return found


def part_e(settings: Settings, left: Callable[[], float]) -> Report:
    from src.data.corpus import open_corpus
    from tests.gpu.transformer import Transformer, batches, validation_loss

    config = composed(settings.words("experiment=tiny_shakespeare"))
    splits = open_corpus(config.data).splits
    ids = {
        name: torch.from_numpy(np.asarray(splits[name].ids).astype(np.int64)).to(settings.device)
        for name in ("train", "val")
    }
    vocab = int(max(part.max() for part in ids.values())) + 1
    torch.manual_seed(1337)
    sizes = {"width": 384, "layers": 6, "heads": 6, "context": 256} if settings.on_gpu else \
            {"width": 16, "layers": 2, "heads": 2, "context": 16}  # fmt: skip
    batch, steps, every = (64, 5000, 250) if settings.on_gpu else (4, 6, 3)
    model = Transformer(vocab, dropout=0.2, **sizes).to(settings.device)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": matrices}, {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    compiled: Any = torch.compile(model) if settings.on_gpu else model
    autocast = torch.autocast(settings.device, torch.bfloat16)
    found: Report = {"parameters": sum(p.numel() for p in model.parameters()), "compiled": settings.on_gpu, "curve": []}
    draw = batches(ids["train"], batch, sizes["context"])

    def step() -> None:
        inputs, targets = next(draw)
        with autocast:
            loss = compiled(inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    started = time.perf_counter()
    if settings.on_gpu:
        try:
            step()
        except Exception as error:  # no compiler for the host's part on this machine: the number is still a number
            found["compiled"], found["compile_error"] = False, f"{type(error).__name__}: {str(error)[:300]}"
            compiled = model
            step()
        torch.cuda.synchronize()
    found["seconds_to_compile"] = time.perf_counter() - started
    seconds, since = 0.0, time.perf_counter()
    for number in range(1, steps + 1):
        rate = 1e-3 * min(1.0, number / 100) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * number / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        step()
        if number % every == 0 or number == steps:
            if settings.on_gpu:
                torch.cuda.synchronize()
            seconds += time.perf_counter() - since
            model.eval()  # not the compiled one, which would be compiled again for it
            with autocast:
                value = validation_loss(model, ids["val"], sizes["context"])
            model.train()
            found["curve"].append((seconds, value))
            if left() < 3 or seconds > 120:
                break
            since = time.perf_counter()
    best = min(value for _, value in found["curve"])
    found |= {"steps": number, "best": best, "seconds": seconds, "seconds_to_target": when(found["curve"], TARGET)}
    what = (
        f"{found['parameters']:,} parameters, compiled: {found['compiled']} ({found['seconds_to_compile']:.0f} s more)"
    )
    reached = f"{TARGET} after {found['seconds_to_target']} s"
    say(f"  {what}: best {best:.4f} nats, {number} steps in {seconds:.1f} s; {reached}")
    found["ok"] = math.isfinite(best)
    return found


PARTS: dict[str, tuple[str, Callable[[Settings, Callable[[], float]], Report]]] = {
    "a": ("the losses are those of the CPU", part_a),
    "b": ("a killed run resumes", part_b),
    "c": ("speed", part_c),
    "d": ("the presets", part_d),
    "e": ("a transformer of nanoGPT's size", part_e),
}


def machine(settings: Settings) -> Report:
    found: Report = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    if settings.on_gpu:
        from src.training.machine import gpu_description

        torch.cuda.init()
        found["gpu"] = gpu_description()
    return found


def summary(results: dict[str, Report]) -> Iterator[str]:
    """Yield the tables for docs/gpu.md."""
    if models := results.get("a", {}).get("models"):
        head = ("model", "graph against CPU", "plain against CPU", "graph against plain")
        keys = ("error_graph", "error_plain", "graph_against_plain")
        rows = [(name, *(f"{one[key]:.1e}" if key in one else "-" for key in keys)) for name, one in models.items()]
        yield table([head, *rows])
    if marks := results.get("c", {}).get("marks"):
        rows = [(size, f"{one['stacked_ms']:.3f}", one["fastest_stacked"], f"{one['times']:.1f}",
                 f"{one.get('manual_against_stacked', math.nan):.2f}") for size, one in marks.items()]  # fmt: skip
        yield table([("size", "stacked ms", "fastest stacked", "times", "manual / stacked, float32 graphs"), *rows])
    runs, e = results.get("d", {}).get("runs", {}), results.get("e", {})
    if runs := runs | ({"transformer": e} if "best" in e else {}):
        head = ("run", "nats on val", "seconds", f"seconds to {TARGET}")
        yield table([head, *((name, f"{one['best']:.4f}", f"{one['seconds']:.1f}", one["seconds_to_target"])
                             for name, one in runs.items() if "best" in one)])  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Run the parts; return the exit code: 1 if one has failed."""
    settings = Settings(words)
    if settings.on_gpu and not torch.cuda.is_available():
        say("make gpu: torch sees no CUDA GPU on this machine, so nothing was run (device=cpu tries the program)")
        return 0
    settings.out.mkdir(parents=True, exist_ok=True)
    started, results = time.perf_counter(), {"machine": machine(settings)}
    say(json.dumps(results["machine"]))
    for key in settings.parts:
        title, part = PARTS[key]
        begun = time.perf_counter()
        end = min(begun + LIMITS[key] + spare(started, settings.parts, key), started + SECONDS)
        say(f"{key}: {title}")
        try:
            found = part(settings, lambda end=end: end - time.perf_counter())
        except Exception as error:  # the other parts still have something to say
            traceback.print_exc()
            found = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        found["seconds_of_the_part"] = round(time.perf_counter() - begun, 1)
        results[key] = found
        (settings.out / f"{key}.json").write_text(json.dumps({**results["machine"], **found}, indent=1) + "\n")
        say(f"{key}: {'ok' if found['ok'] else 'FAILED'} after {found['seconds_of_the_part']:.0f} s\n")
    text = "\n\n".join(summary(results))
    (settings.out / "summary.md").write_text(text + "\n")
    say(f"{text}\n\nall of it in {time.perf_counter() - started:.0f} s; the files are in {settings.out}/")
    return int(not all(found["ok"] for key, found in results.items() if key in PARTS))


def spare(started: float, parts: str, key: str) -> float:
    """Return the seconds that the parts before this one have left of theirs."""
    planned = sum(LIMITS[before] for before in parts[: parts.index(key)])
    return max(0.0, planned - (time.perf_counter() - started))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--killed"]:
        killed(sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))
