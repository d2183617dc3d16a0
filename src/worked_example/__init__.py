"""Backpropagation through time on one word, as numbers: python -m src.explain."""
