"""Updates that keep pass@1, compared at equal length."""
