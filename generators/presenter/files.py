"""Names of the presenter's weights files, for those who read them and those who ask if they are there."""

AUTOENCODER_FILE, DENOISER_FILE = "autoencoder.safetensors", "denoiser.safetensors"
