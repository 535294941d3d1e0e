"""The bundled generator: a small pose-driven video diffusion transformer, its renderer, its training."""
