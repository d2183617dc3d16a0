"""Stored runs as tables: means over seeds, intervals, paired comparisons, figures; without torch and Hydra."""
