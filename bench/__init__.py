"""Time ways to make the same videos, and judge how near they stay to the base model's."""
