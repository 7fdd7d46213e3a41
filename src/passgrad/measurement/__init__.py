"""Measuring the conflict of pass@k and pass@1 from samples of a policy.

:func:`estimate_conflict` takes sampled answers with their gradients, from any model
(:class:`SampledGradients`), and returns <grad J_k, grad J_1> for all k without bias, with
intervals.
"""

from passgrad.measurement.estimate import ConflictEstimate, estimate_conflict
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
    "estimate_conflict",
    "sample_bandit",
]
