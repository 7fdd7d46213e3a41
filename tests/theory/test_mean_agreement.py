"""E[a] = ||grad J_1||^2: a positive mean agreement is an identity, not evidence."""

import pytest

from passgrad.interference import conflict
from passgrad_book.experiments.checks import identities

pytestmark = pytest.mark.statement("prop-mean-agreement")


def test_the_mean_agreement_is_the_squared_norm_of_the_gradient(policy, setting):
    curve = conflict(policy)
    gradient = setting.gradient_at(1)
    mean = float(policy.masses @ curve.agreement)
    assert mean == pytest.approx(float(gradient @ gradient), abs=1e-12)
    assert identities.mean_agreement([setting])["gap"] < 1e-12
    # The mean under another law of the prompts is another number.
    assert abs(float(curve.agreement.mean()) - mean) > 1e-6


def test_it_is_in_the_bandits():
    found = identities.mean_agreement()
    assert found["gap"] < 1e-12
    assert found["smallest"] >= 0
