"""Video and image files in and out."""
