"""Find the steps of the sampler that may be skipped: the tuner and its planner."""
