"""Texts, vocabularies, splits and windows; knows nothing of models, training or Lightning."""
