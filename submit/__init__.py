"""Pack a submission, and prove it before it is sent."""
