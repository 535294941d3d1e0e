"""The little of CUDA that engines need: memory, streams and graphs, through whichever package is there."""
