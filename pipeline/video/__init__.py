"""Read and write video and image files."""
