"""Parts that the U-Nets of several generators share."""
