"""Intervals that say what they are about: success rates, pass@k of prompts, changes of pass@k.

Two readings run through the package. With ``prompts="new"`` the prompts are a sample of a law and
the target is the mean under that law; with ``prompts="fixed"`` the prompts at hand are all that is
asked about and only their samples are drawn anew.
"""

from passgrad.stats.binomial import success_interval
from passgrad.stats.components import VarianceComponents, variance_components
from passgrad.stats.interval import Interval
from passgrad.stats.intervals import PassAtKBand, pass_at_k_band, pass_at_k_interval
from passgrad.stats.paired import PairedChange, paired_change
from passgrad.stats.variance import (
    pass_at_k_covariance,
    pass_at_k_covariance_estimate,
    pass_at_k_variance,
    pass_at_k_variance_estimate,
    plug_in_pass_at_k,
)

__all__ = [
    "Interval",
    "PairedChange",
    "PassAtKBand",
    "VarianceComponents",
    "paired_change",
    "pass_at_k_band",
    "pass_at_k_covariance",
    "pass_at_k_covariance_estimate",
    "pass_at_k_interval",
    "pass_at_k_variance",
    "pass_at_k_variance_estimate",
    "plug_in_pass_at_k",
    "success_interval",
    "variance_components",
]
