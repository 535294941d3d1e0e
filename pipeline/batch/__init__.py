"""A folder of requests: pairing, batch, run folder."""
