"""Ascent in populations of prompts: phase diagrams, plateaus, sampled steps."""
