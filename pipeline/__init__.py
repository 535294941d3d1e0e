"""Carry a request from its files to a finished video."""
