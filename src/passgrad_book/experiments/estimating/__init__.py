"""Estimates of the conflict against exact values: coverage, bias, and their comparison."""
