"""What others do to sample faster, each with its own knobs, so that our step plans have something to beat."""
