"""Every causal family of transformers, tiny and random, as a table of the book."""
