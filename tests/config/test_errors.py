"""An error of the command line: exit code 2, one line that names the key and the remedy, no traceback, no folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from src import train
from src.process import exit_with
from tests.runs.commands import environment

# Each entry is one command line, {override: what the line about it must contain}: all errors are reported at once.
ERRORS = [
    # groups, options and keys that do not exist
    {
        "model=cel": "did you mean cell?",
        "data=tinyshakespeare": "tiny_shakespeare",
        "scheduler=cosin": "cosine",
        "logger=tensorbord": "tensorboard",
        "debug=quick": "fast",
        "modle=cell": "model",
        "benchmark=step": "the groups are callbacks, data, debug",
        "callbacks.gradient_flow=false": "did you mean callbacks.gradient_flow.enabled=false?",
        "+data.seq_len=3": "set it without the plus: data.seq_len=3",
        "~model.dropout": "model.dropout",
        "resume": "resume",
        "stacked": "key=value",
    },
    {
        "model=Stacked": "stacked",
        "model.hiden_size=3": "model.hidden_size",
        "+model.hiden_size=4": "model.hidden_size",
        "+experiment=tutorial": "set it without the plus: experiment=tutorial",
        "lr=0.1": "optimizer.lr",
        "optimizer.learning_rate=0.1": "did you mean optimizer.lr?",
        "trainer.epochs=3": "did you mean trainer.max_epochs?",
        "epochs=3": "did you mean trainer.max_epochs?",
        "trainer.gpus=1": "trainer.accelerator=gpu trainer.devices=N",
        "trainer.fast_dev_run=true": "debug=fast",
        "task_name=x": "did you mean name?",
        "ckpt_path=epoch=9-step=1.ckpt": "resume=RUN",
        "hparams_search=x": "src.search search=NAME",
        "trainer=gpu": "trainer.accelerator=gpu",
        "callbacks.hidden_state.enabled=true": "did you mean callbacks.hidden_states.enabled?",
    },
    {"model=_rnn": "stacked", "modl.x=3": "modl.x: there is no such key; did you mean model?"},
    {"data=null": "tiny_shakespeare", "model=null": "stacked"},
    {"seed=${nosuch}": "'nosuch' not found"},
    # wrong types
    {
        "model.num_layers=two": "a whole number",
        "model.single_bias=maybe": "true or false",
        "optimizer.lr=fast": "a number",
        "loss=sum": "did you mean loss.over_time=sum?",
        "trainer.max_epochs=[1,2]": "a whole number",
        "scheduler=[1]": "cosine",
    },
    # out of range, or no such choice
    {
        "model.num_layers=0": "at least 1",
        "model.dropout=1.5": "0 <= x < 1",
        "model.nonlinearity=sigmoid": "tanh, relu",
        "model.init=orthogonl": "orthogonal",
        "optimizer.weight_decay=nan": "at least 0",
        "trainer.max_epochs=0": "at least 1",
        "trainer.precision=bf16": "did you mean bf16-mixed?",
        "model.init=orth": "did you mean orthogonal?",
        "trainer.threads=many": "auto",
        "trainer.max_time=soon": "HH:MM:SS",
        "trainer.gradient_clip_val=0": "above 0",
        "trainer.limit_val_batches=nan": "a share",
        "trainer.overfit_batches=1.5": "a whole number of windows",
        "trainer.val_check_interval=1.5": "a share",
        "checkpoint.monitor=val/los": "cross_entropy",
        "early_stopping.min_delta=nan": "at least 0",
        "seed=-1": "at least 0",
        "data.batch_size=0": "batch_size",
        "data.unknown=ignore": "map",
        "scheduler.final_fraction=1.5": "0 <= x <= 1",
        "scheduler.gamma=2": "0 < x <= 1",
    },
    {
        "seed=18446744073709551616": "at most 18446744073709551615",
        "optimizer.lr=inf": "above 0",
        "trainer.threads=99999999999": "1 to 1024",
        "trainer.overfit_batches=-1": "0 (off)",
        "name=../elsewhere": "inside of runs=",
    },
    {"name=group/checkpoints": "src.report would not find it", "runs=/dev/null/x": "/dev/null is not a folder"},
    {"data=txt data.path=my.txt budget=10min": "did you mean text?"},
    {"data.input=": "data.input= has 0 characters"},
    {"trainer.min_epochs=99": "trainer.max_epochs=15", "optimizer.recurrent_lr=0.1": "use optimizer.lr"},
    # what does not go together
    {"model=lstm model.nonlinearity=relu": "nonlinearity", "optimizer=adam optimizer.momentum=0.9": "momentum"},
    {"model=gru model.single_bias=true": "single_bias", "optimizer=sgd optimizer.betas=[0.9,0.9]": "betas"},
    {"optimizer=sgd optimizer.momentum=0 optimizer.nesterov=true": "optimizer.momentum", "model.dropout=0.1": "layers"},
    {"model.hidden_size=7": "model.hidden_size=4", "trainer.precision=16-mixed": "bf16-mixed", "name=.x": "src.report"},
    {"data=text": "data.path"},
    {"logger.wandb.project=x": "add the key: +logger.wandb.project"},
    {"logger=csv,tensorboard": "write 'logger=[csv,tensorboard]'"},
    {
        "data=pydoc data.split_seed=1": "is for lists",
        "scheduler.gamma=0.5": "not used by scheduler=none; use step",
        "checkpoint.monitor=val/sequences_right": "data=pydoc has none; use val/acc",
    },
    {
        "data=text data.path=https://example.org/a.txt": "curl -L",
        "data.val_path=-": "standard input",
        "data.codec=cp1253x": "did you mean",
        "data.name=a/b": "a name for a text of your own",
    },
    {"data=text data.path=x data.encoding=bytes data.codec=cp1252": "leave one out"},
    {"data.name=my_book": "needs data.path=FILE"},
    {"data=text data.path=x data.paths=[y]": "leave one out"},
    # one key, two values; folders of Hydra's
    {"data=text data.path=a.txt data.path=b.txt": "data.paths=[a.txt,b.txt]"},
    {"model=cell model=gru": "model is given twice: model=cell and model=gru"},
    {
        "hydra.run.dir=hx": "runs=",
        "hydra.sweep.dir=hx": "runs=",
        "hydra.job.chdir=true": "runs=",
        "hydra.output_subdir=hx": "runs=",
    },
    {"data=pydoc data.unknown=extend": "init_from=RUN"},
    # what only the machine or the text can tell
    {"trainer.devices=4096 trainer.strategy=ddp": "expected at most"},
    {"data=text data.path=nowhere.txt": "nowhere.txt"},
    {"data=text data.path=~nouser/x": "~nouser/x"},
    {"data=text data.path=" + "x" * 5000: "no such file"},
    {"init_from=~nouser/x": "~nouser/x"},
    {"data=pydoc trainer.val_check_interval=1000000": "an epoch has"},
    # stored runs
    {"resume=": "the folder of a run"},
    {"resume=nowhere": "nowhere"},
    {"rerun=nowhere": "nowhere"},
    {"resume=a rerun=b": "one stored run"},
    # flags
    {"seed=1 --cfg seed=3": "--cfg seed=3: expected one of job"},
    {"seed=1 ++seed=2": "seed is given twice"},
    {"seed=1 --cgf job": "--cfg"},
    {"-m seed=1,2 --cfg=job": "leave -m out"},
    {"experiment=null trainer.max_epoch=3": "did you mean trainer.max_epochs?"},
    {"--config-dir nowhere model=leaky": "--config-dir nowhere: there is no such folder", "": "model=leaky: expected"},
    # a sweep: before job 0
    {
        "-m model=cel,manual": "did you mean cell?",
        "seed=0,1 +seed=3": "set it without the plus",
        "data.seq_len=0": "data.seq_len=0",
        "loss=sum": "loss.over_time=sum",
    },
    {"-m trainer.max_epochs=1,0": "at least 1"},
    {"-m data=pydoc seed=0,1 trainer.val_check_interval=1000000": "an epoch has"},
]


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)

    def of(command: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["train", *command.split()])
        with pytest.raises(SystemExit) as ended:
            exit_with(train.main)
        assert ended.value.code == 2
        assert list(tmp_path.iterdir()) == [], "an error leaves nothing behind"
        return capsys.readouterr().err.splitlines()

    return of


@pytest.mark.parametrize("errors", ERRORS, ids=lambda errors: next(iter(errors))[:60])
def test_each_error_of_a_command_line_is_one_line_that_names_the_remedy(errors: dict[str, str], answer) -> None:  # type: ignore[no-untyped-def]
    lines = answer(" ".join(errors))
    for override, right in errors.items():
        assert any(right in line for line in lines), (override, lines)
    assert len(lines) <= len(errors) + 3
    for wrong in ("Traceback", "append", "use +", "data=hello"):  # a text that was not asked for
        assert wrong not in " ".join(lines)


def test_windows_is_one_line() -> None:
    """Also the imports before it must do without the signals that Windows lacks."""
    code = (
        "import platform, runpy, signal\n"
        "del signal.SIGHUP, signal.SIGUSR1\n"
        "platform.system = lambda: 'Windows'\n"
        "runpy.run_module('src.train', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert ended.stderr == "Windows is not supported: run Unroll in the Windows Subsystem for Linux (WSL)\n"
    assert ended.returncode == 1


WHOLE = (  # the least that is a whole configuration: every other key has its default
    "{data: {name: hello}, model: {name: cell, _target_: src.models.cell.CellRNN}, "
    "optimizer: {name: adam}, scheduler: {name: none}}"
)
STORED = [
    ("config.yaml", "{data: {name: hello}}", "config.yaml is not the configuration of a run"),
    ("config.yaml", "[1]", "config.yaml is not the configuration of a run"),
    ("config.yaml", "{a: 1}", "Key 'a' not in 'Config'"),
    ("config.yaml", "{model: {num_layers: many}}", "'many'"),
    ("config.yaml", "a: [", "config.yaml is not the configuration of a run"),
    ("config.yaml", "\udcff", "can't decode"),
    ("run.json", "[1]", "it has no status"),
    ("run.json", "{}", "it has no status"),
    ("run.json", "{", "expected run.json and config.yaml"),
]


@pytest.mark.parametrize(("file", "text", "right"), STORED)
def test_a_folder_that_is_no_run_is_an_error(  # type: ignore[no-untyped-def]
    file: str, text: str, right: str, answer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stored")
    (folder / "config.yaml").write_text(WHOLE)
    (folder / file).write_text(text, errors="surrogateescape")
    lines = answer(f"resume={folder}")
    assert len(lines) <= 2
    assert right in " ".join(lines)


def test_all_errors_of_a_stored_run_are_reported_at_once(answer, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("stored")
    (folder / "config.yaml").write_text(WHOLE)
    lines = answer(f"rerun={folder} trainer.max_epochs=0 modl.x=3 seed=0,1 budget=9s")
    for right in ("modl.x", "at least 1", "key by key", "budget=9s: a stored run keeps"):
        assert sum(right in line for line in lines) == 1, right
