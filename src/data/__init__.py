"""Texts, vocabularies, splits and windows; knows nothing of models or training. Only datamodule imports Lightning."""
