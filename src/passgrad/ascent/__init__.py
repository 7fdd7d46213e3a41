"""Exact ascent in any world: directions, metrics, combinations of gradients, frontiers."""
