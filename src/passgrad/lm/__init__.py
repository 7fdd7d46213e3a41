"""Causal language models: finding them, sampling from them, scoring and differentiating."""
