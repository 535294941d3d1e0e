"""Changes how a generator runs, never what it shows: precision, exact rewrites, step plans."""
