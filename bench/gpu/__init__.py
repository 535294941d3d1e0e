"""One command for a bare machine with a GPU: install what was brought along, test, measure, write it down."""
