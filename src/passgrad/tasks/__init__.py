"""Prompts with a verifier: what a policy is asked, and what counts as a success."""
