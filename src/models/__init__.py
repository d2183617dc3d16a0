"""The recurrences, the readout, and the weights that move between them."""
