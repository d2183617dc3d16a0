"""Many runs: what is there already, what is still to do, how each job ended. Hydra's launchers do the running."""
