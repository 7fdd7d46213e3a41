"""Ascent on objectives of the success rates."""
