"""What `python -m src.benchmark` measures: models, data, callbacks, and a step through the whole framework."""
