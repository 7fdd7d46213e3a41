"""Drawing completions, reading those of other programs, and checking the law that they have."""
