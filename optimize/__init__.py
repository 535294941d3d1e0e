"""Make a generator faster without changing what it shows: precision, exact rewrites, step plans."""
