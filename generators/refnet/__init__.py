"""AnimateAnyone's kind: Stable Diffusion 1.5 with motion modules, and a second U-Net for the reference."""
