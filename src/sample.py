"""python -m src.sample: a trained model generates text. See conf/sample.yaml."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from src.config.compose import load_model, run_inference
from src.config.schema import SampleConfig, SamplingConfig
from src.data.text_reader import Source, read_text
from src.errors import UserError
from src.inference.options import errors_in_sample
from src.process import bytes_of, complain, exit_with, in_json, say

if TYPE_CHECKING:
    from src.inference.generate import Conversation
    from src.inference.load import TrainedModel


def sample(config: SampleConfig) -> None:
    """Generate text and print it."""
    content = None if config.prompt is None else bytes_of(config.prompt, "prompt")
    trained = load_model(config)
    prompt = None if content is None else read_text(Source("prompt", content=content), trained.config.data)
    from src.inference.generate import Conversation, generate, with_seed

    if config.interactive:
        return converse(Conversation(trained, config), prompt)
    prompt, sampling = trained.start if prompt is None else prompt, with_seed(config)
    pieces = generate(trained, prompt, sampling)  # raises before the first character is printed
    if config.format == "json":
        return say(as_json(trained, prompt, sampling, pieces))
    return stream(prompt, sampling, pieces)


def stream(prompt: str, config: SamplingConfig, pieces: Iterator[list[str]]) -> None:
    """Print the first sample as it is generated, then the others, which were generated beside it."""
    count, seed = config.num_samples, config.seed or 0
    headings = [f"--- sample {i + 1} of {count}, seed {seed + i} ---\n" if count > 1 else "" for i in range(count)]
    say(headings[0] + prompt)
    steps = []
    for step in pieces:
        say(step[0])
        steps.append(step)
    for index, own in enumerate(zip(*steps, strict=True)):
        text = prompt + "".join(own)
        say(("" if index == 0 else f"\n{headings[index]}{text}") + ("" if text.endswith("\n") else "\n"))


def as_json(trained: TrainedModel, prompt: str, config: SamplingConfig, pieces: Iterator[list[str]]) -> str:
    """Return all samples and the options they were generated with."""
    samples = []
    for seed, own in enumerate(zip(*pieces, strict=True), start=config.seed or 0):
        text = "".join(own)
        samples.append({"seed": seed, "text": prompt + text, "continuation": text})
    options = ("length", "temperature", "top_k", "top_p", "min_p", "seed", "stop")
    model = {"checkpoint": str(trained.path), "model": trained.config.model.name, "prompt": prompt}
    return in_json({**model, **{key: getattr(config, key) for key in options}, "samples": samples}, indent=2)


def converse(conversation: Conversation, prompt: str | None) -> None:
    """Continue `prompt`, if there is one, then one prompt a line; an empty line continues the last text."""
    terminal = sys.stdin.isatty()
    while True:
        if prompt is None:
            say("> " if terminal else "")
            if not (line := sys.stdin.buffer.readline()):
                return say("\n" if terminal else "")
        try:
            if prompt is None:
                prompt = read_text(Source("prompt", content=line.rstrip(b"\r\n")), conversation.trained.config.data)
            for piece in itertools.chain([prompt], conversation.turn(prompt), ["\n"]):
                say(piece)
        except UserError as error:
            complain(error)
        prompt = None


def main() -> None:
    """Run the command line."""
    run_inference("sample", SampleConfig, sample, errors_in_sample, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
