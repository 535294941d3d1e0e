"""Inputs that nobody made on purpose: mutated files through whole runs, and a fuzz of what is parsed."""
