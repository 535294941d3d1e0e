"""A quarter of an hour on a bare machine with a GPU: what is right, how fast it is, what it is short of."""
