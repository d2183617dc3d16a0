"""What python -m src.benchmark measures: train steps, sampling, data, and a step through the whole framework."""
