"""The bundled generator: a small pose-driven video diffusion transformer, its renderer, its training."""

AUTOENCODER_FILE, DENOISER_FILE = "autoencoder.safetensors", "denoiser.safetensors"  # its weights
