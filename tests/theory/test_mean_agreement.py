"""E[a] = ||grad J_1||^2: a positive mean agreement is an identity, not evidence."""

import pytest

from passgrad.interference import conflict

pytestmark = pytest.mark.statement("prop-mean-agreement")


def test_the_mean_agreement_is_the_squared_norm_of_the_gradient(policy):
    curve = conflict(policy)
    gradient = policy.gradient(lambda p: policy.masses @ p)
    mean = float(policy.masses @ curve.agreement)
    assert mean == pytest.approx(float(gradient @ gradient), abs=1e-12)
    assert mean == pytest.approx(curve.norm_at_1**2, abs=1e-12)
    # The mean under another law of the prompts is another number.
    assert abs(float(curve.agreement.mean()) - mean) > 1e-6
