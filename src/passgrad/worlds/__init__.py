"""Worlds: success rates of a policy on its prompts, and their gradients."""
