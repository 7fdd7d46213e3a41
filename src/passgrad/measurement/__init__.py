"""Measuring the conflict of pass@k and pass@1 from samples of a policy.

:func:`estimate_conflict` takes sampled answers with their gradients, from any model
(:class:`SampledGradients`), and returns <grad J_k, grad J_1> for all k without bias, with
intervals; :func:`simulate_conflict_coverage` measures how often these hold the truth.
"""

from passgrad.measurement.coverage import simulate_conflict_coverage
from passgrad.measurement.estimate import ConflictEstimate, estimate_conflict
from passgrad.measurement.naive import biased_conflict
from passgrad.measurement.samples import (
    OwnProducts,
    SampledGradients,
    ScoreSamples,
    sample_bandit,
)

__all__ = [
    "ConflictEstimate",
    "OwnProducts",
    "SampledGradients",
    "ScoreSamples",
    "biased_conflict",
    "estimate_conflict",
    "sample_bandit",
    "simulate_conflict_coverage",
]
