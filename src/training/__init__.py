"""From a checked configuration to a run's folder: the Lightning module, the trainer, the run's files."""
