"""python -m src.score: the bits of every character of a text. See conf/score.yaml."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from src.config.commands import load_in_implementation, run_inference
from src.config.compose import exit_with
from src.config.schema import ScoreConfig
from src.errors import UserError
from src.inference.options import errors_in_score
from src.process import from_standard_input, in_json, pipe_may_close, say, write_file

if TYPE_CHECKING:
    from src.inference.score import Score
    from src.inference.trained_model import TrainedModel


def score(config: ScoreConfig, files: list[str]) -> None:
    """Score a text, or all files; `files` has every file= of the command line."""
    given = from_standard_input("text" if config.text == "-" else "file") if "-" in (config.text, *files) else ""
    trained = load_in_implementation(config)
    if config.text is not None:
        scores = [trained.score(given if config.text == "-" else config.text)]
    else:
        scores = sorted(score_files(trained, files, given), key=lambda score: score.bits_per_character)
    with pipe_may_close():
        text = FORMATS[config.format](scores, trained)
        if config.output is None:
            return say(text)
        write_file(config.output, text)
        say(f"written: {config.output}\n")


def score_files(trained: TrainedModel, files: list[str], given: str) -> list[Score]:
    """Score every file of these files, folders and globs, each read as the model's own text was.

    Raises:
        UserError: the errors of all files that cannot be scored.
    """
    from src.data.text_reader import find
    from src.inference.score import score_ids, source_ids

    scores: list[Score] = []
    errors: list[str] = []
    for file in files:
        try:
            if file == "-":
                scores.append(trained.score(given, "-"))
                continue
            sources = find(file, "file")
        except UserError as error:
            errors += [message.removeprefix("data.") for message in error.messages]
            continue
        for source in sources:
            try:
                scores.append(score_ids(trained, source_ids(trained, source), source.name))
            except UserError as error:
                errors += error.messages
    if errors:
        raise UserError(*errors)
    return scores


def as_text(scores: list[Score], trained: TrainedModel) -> str:
    """One text: a line per character, then the whole. Several: a line per text, the least surprising first."""
    if len(scores) > 1:
        width = max(len(score.name) for score in scores)
        head = f"{'':{width}}  characters  bits a character  perplexity\n"
        return head + "".join(
            f"{one.name:{width}}{one.characters:12,}{one.bits_per_character:18.4f}{one.perplexity:12.3f}\n"
            for one in scores
        )
    (one,) = scores
    lines = "".join(
        f"{'given' if bits is None else format(bits, '.3f'):>8}  {character!r}\n" for character, bits in one.readable()
    )
    return (
        f"{lines}{one.characters:,} characters scored: {one.total:.2f} bits, {one.bits_per_character:.4f} bits a "
        f"character, perplexity {one.perplexity:.3f}, {one.accuracy:.2%} guessed\n"
    )


def as_json(scores: list[Score], trained: TrainedModel) -> str:
    """One object, or for several texts a list of them in order."""
    plain = [score.to_plain() for score in scores]
    return in_json(plain[0] if len(plain) == 1 else plain)


def as_html(scores: list[Score], trained: TrainedModel) -> str:
    """A page with the texts coloured."""
    from src.inference.score import render

    return render(scores, f"{trained.config.model.name} on {trained.config.data.name}, {trained.path}")


FORMATS = {"text": as_text, "json": as_json, "html": as_html}


def main() -> None:
    """Run the command line. Of several file= Hydra keeps the last; here all count."""
    words = sys.argv[1:]
    files = [word.partition("=")[2] for word in words if word.startswith("file=")]
    run_inference("score", ScoreConfig, partial(score, files=files), errors_in_score, words)


if __name__ == "__main__":
    exit_with(main)
