"""python -m src.benchmark: train steps, sampling, data, and a step through the whole framework."""
