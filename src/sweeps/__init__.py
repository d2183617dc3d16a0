"""Sweeps of many runs that can be started again, and the search for hyperparameters. Hydra's launchers run the jobs."""
