"""python -m src.score: the bits of every character of a text. See conf/score.yaml."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from src.config.compose import load_model, run_inference
from src.config.schema import ScoreConfig
from src.data.text_reader import Source, find, read_text
from src.errors import UserError
from src.files import user_path
from src.inference.options import errors_in_score
from src.process import bytes_of, exit_with, in_json, write_file

if TYPE_CHECKING:
    from src.inference.evaluate import Score
    from src.inference.load import TrainedModel


def score(config: ScoreConfig, files: list[str]) -> None:
    """Score a text, or all files; `files` has every file= of the command line."""
    files = files if len(files) > 1 else [config.file or ""]  # of a sweep, this job's
    if config.text is None and "" in files:
        raise UserError("file is empty: expected a file, a folder or a glob")
    key, value = ("file", "-" if "-" in files else "") if config.text is None else ("text", config.text)
    given = Source("-" if key == "file" else key, content=bytes_of(value, key))
    trained = load_model(config)
    scores = score_files(trained, files if config.text is None else ["-"], given, config.output)
    if config.format == "json":
        plain = [score.to_plain() for score in scores]
        text = in_json(plain[0] if len(plain) == 1 else plain)
    elif config.format == "html":
        from src.inference.page import render

        text = render(scores, f"{trained.config.model.name} on {trained.config.data.name}, {trained.path}")
    else:
        text = table(scores) if len(scores) > 1 else by_character(scores[0])
    write_file(config.output, text)


def score_files(trained: TrainedModel, files: list[str], given: Source, output: str | None) -> list[Score]:
    """Score `given` for `-`, and all files that the others name, best first; a UserError has the errors of all."""
    scores: list[Score] = []
    sources: list[Source] = []
    errors: list[str] = []
    for file in files:
        try:
            sources += [given] if file == "-" else find(file, "file", trained.config.data.encoding != "bytes")
        except UserError as error:
            errors += [message.removeprefix("data.") for message in error.messages]
    if output and user_path(output).resolve() in {source.path.resolve() for source in sources if source.path}:
        errors.append(f"output={output} is a text that is read; name another file")
    for source in sources:
        try:
            scores.append(trained.score(read_text(source, trained.config.data), source.name))
        except UserError as error:
            errors += error.messages
    if errors:
        raise UserError(*errors)
    return sorted(scores, key=lambda score: score.bits_per_character)


def table(scores: list[Score]) -> str:
    """Return a line per text, the least surprising first."""
    width = max(len(score.name) for score in scores)
    lines = [f"{'':{width}}  characters  bits a character  perplexity\n"]
    for one in scores:
        lines.append(f"{one.name:{width}}{one.characters:12,}{one.bits_per_character:18.4f}{one.perplexity:12.3f}\n")
    return "".join(lines)


def by_character(one: Score) -> str:
    """Return a line per character, then the whole."""
    costs = (("given" if bits is None else f"{bits:.3f}", character) for character, bits in one.readable())
    return "".join(f"{cost:>8}  {character!r}\n" for cost, character in costs) + (
        f"{one.characters:,} characters scored: {one.total:.2f} bits, {one.bits_per_character:.4f} bits a "
        f"character, perplexity {one.perplexity:.3f}, {one.accuracy:.2%} guessed\n"
    )


def main() -> None:
    """Run the command line. Unlike other keys, file= may be given several times."""
    arguments = {word.partition("=")[0] if word.startswith("file=") else word: word for word in sys.argv[1:]}
    files = [word.partition("=")[2] for word in sys.argv[1:] if word.startswith("file=")]
    run_inference("score", ScoreConfig, partial(score, files=files), errors_in_score, [*arguments.values()])


if __name__ == "__main__":
    exit_with(main)
