"""Graphs in lower precision, and what that costs."""
