"""What a model is made of: components, sampling grid, windows; one file or folder a model family."""
