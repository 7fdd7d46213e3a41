"""Success rates of real models on real problems, and of a real run."""
