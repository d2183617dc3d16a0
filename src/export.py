"""python -m src.export: a trained model as a file for other programs. See conf/export.yaml for what can be set."""

from __future__ import annotations

import sys

from src.config.commands import ExportConfig, mistakes_in_export, opened, run
from src.config.compose import exit_with
from src.process import pipe_may_close, say


def export(config: ExportConfig) -> None:
    """Export as a checked configuration says, and print what was checked and where the files lie."""
    trained = opened(config)
    from src.inference.export import export_to

    files, difference = export_to(trained, config.format, config.output)
    checked = {
        "onnx": f"100 carried steps in onnxruntime differ from the model by {difference:.1e} at most",
        "torch": f"100 carried steps of the loaded file differ from the model by {difference:.1e} at most",
        "safetensors": "read back, every weight is the same to the bit",
    }
    with pipe_may_close():
        say(f"{checked[config['format']]}\n" + "".join(f"{file}\n" for file in files))


def main() -> None:
    """Answer the command line."""
    run("export", ExportConfig, export, mistakes_in_export, sys.argv[1:])


if __name__ == "__main__":
    exit_with(main)
