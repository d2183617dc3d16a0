"""Finished runs, read back from their files: one table, defended by its spread.

    runs -> settings -> metric -> table (statistics) -> text, sheet, html (curves, chart); compare stands beside table

Reads `run.json`, `config.yaml`, `metrics.jsonl` and `evaluation_<split>.json` and nothing else: no torch, no Hydra, no
model, so that a table can be made again on a machine that could not train.
"""
