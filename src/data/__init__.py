"""The data room: texts, vocabularies and windows; it knows nothing of models, configuration or training."""
