"""python -m src.export: a trained model as a file for other programs. See conf/export.yaml."""

from __future__ import annotations

import sys

from src.config.compose import load_model, run_inference
from src.config.schema import ExportConfig
from src.data.text_reader import Source, read_text
from src.inference.options import errors_in_export
from src.process import bytes_of, exit_with, say


def export(config: ExportConfig) -> None:
    """Export, and print what was checked and the files."""
    content = None if config.example is None else bytes_of(config.example, "example")
    trained = load_model(config)
    from src.inference.export import STEPS, export_to

    example = None if content is None else read_text(Source("example", content=content), trained.config.data)
    files, difference = export_to(trained, config.format, config.output, example)
    program = "onnxruntime" if config.format == "onnx" else "the loaded file"
    checked = f"{STEPS} carried steps in {program} differ from the model by {difference:.1e} at most"
    if config.format == "safetensors":
        checked = "read back, every weight is the same to the bit"
    elif config.format == "html":
        checked = f"rounding the weights to 16 bits: {difference:+.1e} bits per character of a text that it wrote"
    say(f"{checked}\n" + "".join(f"{file}\n" for file in files))


def main() -> None:
    """Run the command line."""
    run_inference("export", ExportConfig, export, errors_in_export, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
