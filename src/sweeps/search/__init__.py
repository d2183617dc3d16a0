"""The search for hyperparameters with Optuna: python -m src.search."""
