"""The search for hyperparameters, on Optuna: python -m src.search."""
