"""Inner products of the gradients of prompts: exact in blocks, kept, or sketched."""
