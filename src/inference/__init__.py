"""A trained model in use: load, sample, score, evaluate, export."""
