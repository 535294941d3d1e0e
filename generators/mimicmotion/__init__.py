"""MimicMotion: the U-Net of Stable Video Diffusion 1.1 with a small pose network."""
