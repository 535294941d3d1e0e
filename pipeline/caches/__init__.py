"""Techniques that others published to sample faster, which a recipe names under [technique]."""
