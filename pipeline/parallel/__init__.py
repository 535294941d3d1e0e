"""Many processes, devices or machines for one run."""
