"""Answers of a completion: where they stand, how they are read, and when two are the same."""
