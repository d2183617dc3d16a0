"""Stored runs as tables: means over seeds, intervals, paired comparisons, figures.

Reads `run.json`, `config.yaml`, `metrics.jsonl` and `evaluation_<split>.json` and nothing else: needs neither torch nor
Hydra, so a table can be made wherever the folders were copied to.
"""
