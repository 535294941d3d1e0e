"""The tuner: which steps of the sampler may be skipped."""
