"""python -m src.sample: a trained model generates text. See conf/sample.yaml."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from src.config.commands import load_in_implementation, run_inference
from src.config.compose import exit_with
from src.config.schema import SampleConfig, SamplingConfig
from src.errors import UserError
from src.inference.options import errors_in_sample
from src.process import from_standard_input, in_json, line_of_standard_input, pipe_may_close, say

if TYPE_CHECKING:
    from src.inference.load import TrainedModel


def sample(config: SampleConfig) -> None:
    """Generate text and print it."""
    prompt = from_standard_input("prompt") if config.prompt == "-" else config.prompt
    trained = load_in_implementation(config)
    with pipe_may_close():
        if config.interactive:
            converse(trained, config, prompt)
        elif config.format == "json":
            say(as_json(trained, trained.start if prompt is None else prompt, config))
        else:
            stream(trained, trained.start if prompt is None else prompt, config)


def stream(trained: TrainedModel, prompt: str, config: SamplingConfig) -> None:
    """Print the first sample as it is generated, then the others, which were generated beside it."""
    from src.inference.generate import generate

    pieces = generate(trained, prompt, config)  # raises before the first character is printed
    say((heading(config, 0) if config.num_samples > 1 else "") + prompt)
    steps = []
    for step in pieces:
        say(step[0])
        steps.append(step)
    for index, own in enumerate(zip(*steps, strict=True)):
        text = prompt + "".join(own)
        say(("" if index == 0 else f"\n{heading(config, index)}{text}") + ("" if text.endswith("\n") else "\n"))


def heading(config: SamplingConfig, index: int) -> str:
    """Return the line above one of several samples."""
    seed = "" if config.seed is None else f", seed {config.seed + index}"
    return f"--- sample {index + 1} of {config.num_samples}{seed} ---\n"


def as_json(trained: TrainedModel, prompt: str, config: SamplingConfig) -> str:
    """Return all samples and the options they were generated with."""
    from src.inference.generate import generate, with_seed

    config = with_seed(config)
    texts = ["".join(own) for own in zip(*generate(trained, prompt, config), strict=True)]
    seeds = range(config.seed or 0, (config.seed or 0) + config.num_samples)
    samples = [{"seed": i, "text": prompt + text, "continuation": text} for i, text in zip(seeds, texts, strict=True)]
    options = ("length", "temperature", "top_k", "top_p", "min_p", "seed", "stop")
    model = {"checkpoint": str(trained.path), "model": trained.config.model.name, "prompt": prompt}
    return in_json({**model, **{key: getattr(config, key) for key in options}, "samples": samples}, indent=2)


def converse(trained: TrainedModel, config: SamplingConfig, prompt: str | None) -> None:
    """Continue `prompt`, if there is one, then one prompt a line; an empty line continues the last text."""
    from src.inference.generate import Conversation

    terminal, conversation = sys.stdin.isatty(), Conversation(trained, config)
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
        except UserError as error:
            print(error, file=sys.stderr)
        prompt = None


def main() -> None:
    """Run the command line."""
    run_inference("sample", SampleConfig, sample, errors_in_sample, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
