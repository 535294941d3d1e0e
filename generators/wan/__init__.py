"""Video diffusion transformers of the Wan family that follow a pose video, from checkpoints of your own."""
