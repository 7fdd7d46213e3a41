"""The training study: many runs of a small transformer whose success rates are exact."""
