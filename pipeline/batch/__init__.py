"""Find the requests of a data folder, make their videos one by one, and keep a manifest of the results."""
