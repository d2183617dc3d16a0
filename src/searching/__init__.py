"""Search: Optuna proposes, a run of ours answers, the study remembers on disk. Optuna is the extra `search`."""
