"""Backpropagation through time of a short example, as numbers, for python -m src.explain."""
