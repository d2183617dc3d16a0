"""Backpropagation through time of a short example, as numbers: python -m src.explain."""
