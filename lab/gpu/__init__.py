"""Measure on a bare machine with a GPU, in a quarter of an hour: what is right, how fast, what limits it."""
