"""What a short run shows in TensorBoard: every tag of the design, with the right number of points, for every model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG

from src import train
from src.reports.runs import read_run
from tests.runs.commands import environment, last_of_each, only_run, refused_here, run, start
from tests.runs.test_resume import WORDS

pytestmark = pytest.mark.slow

TEXT = "What is aught, but as 'tis valued? <b>markup</b> costs $5 & `more`.\n" * 40
SMALL = [
    "data=text", "data.path=text.txt", "data.seq_len=9", "data.batch_size=4", "model.num_layers=2",
    "model.hidden_size=8", "trainer.max_epochs=5", "trainer.limit_train_batches=6", "trainer.log_every_n_steps=3",
    "callbacks.text_samples.length=40",
]  # fmt: skip
END = 30  # steps: five epochs of six; validations at 6, 12, 18, 24, 30, of which the first and the fourth are drawn
FIGURES = [
    "window/loss_by_position", "gradient/by_lag", "recurrent/eigenvalues", "hidden/units_over_text", "text/surprisal",
    "text/confusions",
]  # fmt: skip
FOUR = ("cross_entropy", "bits_per_character", "perplexity", "accuracy")


def events_of(folder: Path, processes: int = 1) -> EventAccumulator:
    """Everything in a run's event files, one a process that wrote, and one for the row of HParams."""
    files = [file for file in folder.glob("events.out.tfevents.*") if not file.name.endswith(".hparams")]
    assert len(files) == processes
    everything = {"images": 0, "scalars": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


def run_here(folder: Path, *words: str, text: str = TEXT) -> Path:
    """Train in this process, in a folder with the text; return the run's folder."""
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text(text)
    with pytest.MonkeyPatch.context() as given:
        given.chdir(folder)
        given.setattr(sys, "argv", ["train", *last_of_each(words)])
        train.main()
    return only_run(folder)


def steps(points: list) -> list[int]:
    return [point.step for point in points]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of a plain and of a gated model, in one process: model -> folder."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "text.txt").write_text(TEXT)
    run("-m", "model=manual,lstm", *SMALL, "callbacks.save_figures=true", cwd=folder, timeout=400)
    return {json.loads(record.read_text())["model"]: record.parent for record in folder.rglob("run.json")}


@pytest.mark.parametrize("model", ["manual", "lstm"])
def test_every_curve_of_the_table_is_there_with_its_points(sweep, model):
    events = events_of(sweep[model])
    every_third = list(range(0, END, 3))
    validations = [6, 12, 18, 24, 30]
    expected = {f"train/{name}": every_third for name in (*FOUR, "loss", "grad_norm", "characters_per_second")}
    expected |= {"optimizer/learning_rate": every_third, "train/clip_rate": every_third}
    expected |= {f"val/{name}": validations for name in FOUR}
    expected |= {f"baseline/{name}": [0, END] for name in ("uniform", "unigram", "ngram_5")}
    expected |= {f"recurrent/saturated/layer_{layer}": [0, *validations] for layer in (0, 1)}
    if model != "lstm":
        expected |= {f"recurrent/spectral_radius/layer_{layer}": [0, *validations] for layer in (0, 1)}
    found = {tag: steps(events.Scalars(tag)) for tag in events.Tags()["scalars"]}
    assert {tag: found.get(tag) for tag in expected} == expected
    assert "hp_metric" not in found
    assert {tag for tag in found if tag.startswith("recurrent")} == {tag for tag in expected if tag.startswith("rec")}


def test_each_line_of_metrics_has_what_the_diagnostics_measured_at_its_step(sweep):
    for model in ("manual", "lstm"):
        events, layers = events_of(sweep[model]), ("layer_0", "layer_1")
        tags = ["window/cross_entropy_fresh", "window/cross_entropy_carried"]
        tags += [f"recurrent/saturated/{layer}" for layer in layers]
        names = ("recurrent/spectral_radius", "gradient/lag_1_percent")
        tags += [f"{name}/{layer}" for name in names for layer in layers if model == "manual"]
        lines = [json.loads(line) for line in (sweep[model] / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            assert {tag for tag in line if tag.split("/")[0] in ("window", "recurrent", "gradient")} == set(tags)
            for tag in tags:
                shown = {point.step: point.value for point in events.Scalars(tag)}
                assert line[tag] == pytest.approx(shown[line["step"]], rel=1e-6)
        assert lines[-1]["window/cross_entropy_carried"] == pytest.approx(lines[-1]["val/cross_entropy"], rel=0.05)
        numbers = read_run(sweep[model]).numbers
        assert numbers["window/cross_entropy_fresh"] == lines[-1]["window/cross_entropy_fresh"]


def test_the_measures_are_written_without_a_logger_and_not_where_their_callback_is_off(tmp_path):
    words = [*SMALL, "model=manual", "trainer.max_epochs=2", "logger=none", "callbacks.gradient_flow.enabled=false"]
    folder = run_here(tmp_path, *words, "trainer.check_val_every_n_epoch=2")
    first, line = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert {tag.split("/")[0] for tag in first if "/" in tag} == {"train"}  # those of step 0 are not of its step
    assert {"window/cross_entropy_fresh", "recurrent/spectral_radius/layer_1"} <= line.keys()
    assert not [tag for tag in line if tag.startswith("gradient")]
    assert not list(folder.glob("events*"))


@pytest.mark.parametrize("model", ["manual", "lstm"])
def test_every_figure_of_the_table_is_drawn_at_validations_one_and_four_and_at_the_end(sweep, model):
    events = events_of(sweep[model])
    expected = {tag: [6, 24, 30] for tag in FIGURES}
    expected["recurrent/eigenvalues"] = [0, 24, 30]  # where an initialisation puts them, in the place of the first
    if model == "lstm":
        del expected["gradient/by_lag"], expected["recurrent/eigenvalues"]
    assert {tag: steps(events.Images(tag)) for tag in events.Tags()["images"]} == expected


def test_a_saved_figure_is_the_picture_in_tensorboard_800_pixels_wide(sweep):
    events = events_of(sweep["manual"])
    files = sorted(path.name for path in (sweep["manual"] / "figures").iterdir())
    assert len(files) == 6 * 3
    for tag in FIGURES:
        image, file = events.Images(tag)[-1], sweep["manual"] / "figures" / f"{tag.replace('/', '_')}_000030.png"
        assert file.read_bytes() == image.encoded_image_string
        assert image.width == 800


def test_a_text_at_each_temperature_at_each_validation_shown_as_it_is(sweep):
    events = events_of(sweep["manual"])
    for temperature in ("0.5", "0.8", "1.0"):
        points = events.Tensors(f"samples/temperature_{temperature}")
        assert steps(points) == [6, 12, 18, 24, 30]
        text = points[-1].tensor_proto.string_val[0].decode()
        assert text.startswith("```")
        fence = text.split("\n", 1)[0]
        assert text.endswith("\n" + fence)
        assert fence not in text[len(fence) : -len(fence)]


def test_the_projector_has_a_vector_and_a_printable_label_for_every_character(sweep):
    for model, dimensions in (("manual", 8), ("lstm", 32)):
        config = (sweep[model] / "projector_config.pbtxt").read_text()
        assert 'tensor_name: "input_vectors"' in config
        rows = (sweep[model] / "projector" / "input_vectors.tsv").read_text().splitlines()
        labels = (sweep[model] / "projector" / "input_vectors_labels.tsv").read_text().splitlines()
        assert len(rows) == len(labels) == len(set(TEXT))
        assert {len(row.split("\t")) for row in rows} == {dimensions}
        assert {"␣", "↵", "$", "W"} <= set(labels)
        assert all(label.strip() for label in labels)


def test_what_does_not_apply_to_a_gated_model_is_skipped_and_logged_once(sweep):
    log = (sweep["lstm"] / "train.log").read_text()
    assert log.count("not applicable to LSTM: skipped") == 1
    assert "callbacks.recurrent_matrix, callbacks.gradient_flow" in log
    assert "not applicable" not in (sweep["manual"] / "train.log").read_text()


@pytest.fixture(scope="module")
def with_cadence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over longer windows, its gradient looked at every 8 steps."""
    folder = tmp_path_factory.mktemp("cadence")
    words = ["callbacks=none", "callbacks.gradient_flow.enabled=true", "callbacks.gradient_flow.every_n_steps=8"]
    return run_here(
        folder, *SMALL, "model=cell", *words, "data.seq_len=40", "data.evaluation_streams=1", "trainer.max_epochs=3"
    )


def test_a_cadence_in_steps_looks_and_draws_at_each_of_its_multiples(with_cadence):
    events = events_of(with_cadence)
    assert steps(events.Images("gradient/by_lag")) == [0, 8, 16, 18]
    assert events.Tags()["images"] == ["gradient/by_lag"]


def test_between_two_validations_a_cadence_shows_the_numbers_of_its_own_step(tmp_path):
    names = ("loss_by_position", "confusions")
    words = [f"callbacks.{name}.{word}" for name in names for word in ("enabled=true", "every_n_steps=4")]
    words += ["trainer.max_epochs=2", "trainer.limit_train_batches=3", "optimizer.lr=0.05"]
    words += ["trainer.limit_val_batches=3"]
    folder = run_here(tmp_path, *SMALL, "model=manual", "callbacks=none", *words)
    events = events_of(folder)  # validations at 3 and 6
    carried, fresh = (events.Scalars(f"window/cross_entropy_{name}") for name in ("carried", "fresh"))
    assert steps(carried) == steps(fresh) == [0, 3, 4, 6]
    assert len({point.value for point in carried}) == 4
    validated = {point.step: point.value for point in events.Scalars("val/cross_entropy")}
    assert carried[3].value == pytest.approx(validated[6], rel=1e-6)  # over the windows of the validation, no others
    assert abs(fresh[0].value - carried[0].value) < 0.1  # an untrained network has no use for a past
    pictures = [image.encoded_image_string for image in events.Images("text/confusions")]
    assert len(set(pictures)) == 3


def test_where_the_gradient_vanishes_is_said_once_with_layer_and_lag(with_cadence):
    lines = (with_cadence / "train.log").read_text().splitlines()
    (line,) = [line for line in lines if "gradient vanishes" in line]
    assert re.search(r"at step 0 .* in layer [01] .* from lag k = \d+ on.*; model=lstm or model=gru carry it", line)


def test_watching_changes_no_bit_of_what_is_trained(tmp_path):
    """Dropout, random offsets, validations in mid-epoch, a carried state: everything that looking could disturb."""
    ends = []
    for name in ("watched", "unwatched"):
        on = [f"callbacks.{each}.every_n_steps=16" for each in ("gradient_flow", "hidden_states", "text_samples")]
        on += ["callbacks.text_samples.length=40"]
        words = ["trainer.max_epochs=1", "trainer.limit_train_batches=20"]
        words += on if name == "watched" else ["callbacks=none"]
        folder = run_here(tmp_path / name, *WORDS, *words)
        ends.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True))
    assert events_of(only_run(tmp_path / "watched")).Tags()["images"]
    watched, unwatched = ends
    for name, weight in unwatched["state_dict"].items():
        assert torch.equal(watched["state_dict"][name], weight), name
    mine, theirs = (end["unroll"]["progress"]["ranks"][0] for end in ends)
    assert torch.equal(mine["random"]["cpu"], theirs["random"]["cpu"])
    assert torch.equal(mine["states"]["train"], theirs["states"]["train"])


def everything(folder: Path) -> dict[str, list[tuple[int, object]]]:
    """All that a run shows but its speed: {tag: [(step, value to the bit), ...]} over all its event files.

    The row of HParams has its values in its tag's description, with times of day and the folder's name.
    """
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0, "histograms": 0})
    tags = events.Reload().Tags()
    shown: dict[str, list[tuple[int, object]]] = {}
    for tag in set(tags["scalars"]) - {"train/characters_per_second"}:
        shown[tag] = [(point.step, point.value.hex()) for point in events.Scalars(tag)]
    for tag in tags["images"]:
        shown[tag] = [(point.step, point.encoded_image_string) for point in events.Images(tag)]
    for tag in tags["histograms"]:
        shown[tag] = [(point.step, point.histogram_value) for point in events.Histograms(tag)]
    for tag in set(tags["tensors"]) - {SESSION_START_INFO_TAG}:  # which each start writes again
        shown[tag] = [(point.step, point.tensor_proto.SerializeToString()) for point in events.Tensors(tag)]
    return shown


@pytest.mark.soak
def test_killed_twice_a_watched_run_shows_what_an_undisturbed_one_shows(tmp_path):
    words = [*SMALL, "model=manual", "model.dropout=0.2", "data.offset=random", "trainer.val_check_interval=0.5"]
    words += ["checkpoint.every_n_steps=2", "trainer.max_epochs=3", "callbacks.text_samples.every_n_steps=5"]
    words += ["callbacks.loss_by_position.every_n_steps=4", "callbacks.confusions.every_n_steps=5"]
    folders = []
    for name, lines_before_a_kill in (("straight", []), ("killed", [1, 4])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "text.txt").write_text(TEXT)
        command = words
        for lines in lines_before_a_kill:
            process = start(*command, cwd=folder)
            while sum(len(path.read_text().splitlines()) for path in folder.rglob("metrics.jsonl")) < lines:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            process.kill()
            process.communicate()
            command = [f"resume={only_run(folder)}"]
        run(*command, cwd=folder)
        folders.append(only_run(folder))
    straight, killed = (everything(folder) for folder in folders)
    assert set(FIGURES) < set(straight)
    assert straight.keys() == killed.keys()
    assert [tag for tag in straight if straight[tag] != killed[tag]] == []


@pytest.mark.soak
def test_under_ddp_the_first_process_alone_writes_and_writes_all(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    run(*SMALL, "model=manual", "trainer.devices=2", "trainer.strategy=ddp", "trainer.max_epochs=1", cwd=tmp_path)
    events = events_of(only_run(tmp_path))  # one event file
    drawn = {tag: steps(events.Images(tag)) for tag in events.Tags()["images"]}
    assert drawn == {tag: [6] for tag in FIGURES} | {"recurrent/eigenvalues": [0, 6]}
    assert steps(events.Scalars("recurrent/saturated/layer_1")) == [0, 6]
    assert steps(events.Tensors("samples/temperature_0.8")) == [6]


@pytest.mark.soak  # tests/test_trace.py looks at a run without callbacks
def test_the_main_job_imports_only_what_it_uses(tmp_path):
    """It must start as fast as a bare script."""
    code = (
        "import sys\nfrom src.train import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('imported:', [name for name in ('torch', 'matplotlib', 'scipy', 'pandas') if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines()[-1] == "imported: ['torch']"


def test_a_network_that_has_diverged_ends_as_it_would_unwatched(tmp_path):
    """Its logits are not finite after one step; the validation says so, and what watches draws what there is."""
    words = ["model=manual", "model.nonlinearity=relu", "optimizer.lr=1e5", "trainer.max_epochs=1"]
    words += ["trainer.limit_train_batches=1"]
    weights = []
    for name, switch in (("watched", []), ("unwatched", ["callbacks=none"])):
        folder = run_here(tmp_path / name, *SMALL, *words, *switch)
        assert '"status": "done"' in (folder / "run.json").read_text()
        weights.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    log = next((tmp_path / "watched").rglob("train.log")).read_text()
    assert log.count("no samples: the logits are not finite") == 1
    assert "Warning" not in log
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_a_prompt_with_a_character_that_no_text_has_is_refused_before_there_is_a_folder(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    for sweep in ([], ["-m", "seed=0,1"]):
        told = refused_here(*sweep, *SMALL, "callbacks.text_samples.prompt=Zebra", cwd=tmp_path)
        assert "callbacks.text_samples.prompt='Zebra': the text has 1 character that the vocabulary" in "".join(told)
        assert not (tmp_path / "runs").exists()
