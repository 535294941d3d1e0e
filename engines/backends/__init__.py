"""What runs one network: a file for each backend."""
