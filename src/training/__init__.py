"""From a checked configuration to a run's folder: the Lightning module, the callbacks, the record."""
