"""python -m src.sample: a trained model writes. See conf/sample.yaml for what can be set."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from src.config.commands import SampleConfig, mistakes_in_sample, opened, run, wanted
from src.config.compose import exit_with
from src.errors import UserError
from src.inference.options import Writing
from src.process import from_standard_input, in_json, line_of_standard_input, pipe_may_close, say

if TYPE_CHECKING:
    from src.inference.trained_model import TrainedModel


def sample(config: SampleConfig) -> None:
    """Write as a checked configuration says."""
    prompt = from_standard_input("prompt") if config.prompt == "-" else config.prompt
    trained = opened(config)
    writing = wanted(config)
    with pipe_may_close():
        if config.interactive:
            return converse(trained, writing, prompt)
        prompt = trained.start if prompt is None else prompt
        if config.format == "json":
            return say(as_json(trained, prompt, writing))
        return stream(trained, prompt, writing)


def stream(trained: TrainedModel, prompt: str, writing: Writing) -> None:
    """Write the first sample as it comes, the others, which were written beside it, behind it."""
    from src.inference.generate import written

    pieces = written(trained, prompt, writing)  # what is wrong is said before the first character
    several = writing.num_samples > 1
    say((heading(writing, 0) if several else "") + prompt)
    steps = []
    for step in pieces:
        say(step[0])
        steps.append(step)
    whole = [prompt + "".join(own) for own in zip(*steps, strict=True)]
    say("" if whole[0].endswith("\n") else "\n")
    for index, text in enumerate(whole[1:], start=1):
        say(heading(writing, index) + text + ("" if text.endswith("\n") else "\n"))


def heading(writing: Writing, index: int) -> str:
    """What stands above one of several samples."""
    seed = "" if writing.seed is None else f", seed {writing.seed + index}"
    return f"{'' if index == 0 else chr(10)}--- sample {index + 1} of {writing.num_samples}{seed} ---\n"


def as_json(trained: TrainedModel, prompt: str, writing: Writing) -> str:
    """All samples and what they were made from."""
    from src.inference.generate import seeded, written

    writing = seeded(writing)
    pieces = list(written(trained, prompt, writing))
    samples = []
    for index, own in enumerate(zip(*pieces, strict=True)):
        text = "".join(own)
        samples.append({"seed": (writing.seed or 0) + index, "text": prompt + text, "continuation": text})
    choice = vars(writing.choice)
    made = {"checkpoint": str(trained.path), "model": trained.config.model.name, "prompt": prompt}
    asked = {"length": writing.length, **choice, "seed": writing.seed, "stop": writing.stop}
    return in_json({**made, **asked, "samples": samples}, indent=2)


def converse(trained: TrainedModel, writing: Writing, prompt: str | None) -> None:
    """Write on from `prompt`, if there is one, then from a prompt a line; an empty line goes on with the last text."""
    from src.inference.generate import Conversation

    terminal = sys.stdin.isatty()
    conversation = Conversation(trained, writing)
    while True:
        if prompt is None:
            say("> " if terminal else "")
            prompt = line_of_standard_input()
        if prompt is None:
            return say("\n" if terminal else "")
        try:
            pieces = conversation.turn(prompt)
            say(prompt)
            for piece in pieces:
                say(piece)
            say("\n")
        except UserError as mistake:
            print(mistake, file=sys.stderr)
        prompt = None


def main() -> None:
    """Answer the command line."""
    run("sample", SampleConfig, sample, mistakes_in_sample, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
