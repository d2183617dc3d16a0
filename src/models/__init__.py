"""The recurrences, the readout and the loss, and weights that move between implementations."""
