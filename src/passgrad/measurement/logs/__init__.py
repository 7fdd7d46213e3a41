"""What a run did to pass@k, read from the rewards that it logged."""
