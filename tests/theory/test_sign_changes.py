"""<grad J_k, grad J_1> changes sign at most as often as the agreement along the success rate."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from passgrad.interference import conflict, crossings, sign_changes
from passgrad.worlds.base import AnalyticWorld

pytestmark = pytest.mark.statement("thm-sign-changes")


class Given(AnalyticWorld):
    """Prompts with success rates, masses and agreements as they are given, for E[a] > 0.

    One parameter will do: with slopes a / sqrt(E[a]), grad J_1 = sqrt(E[a]), and a is the product.
    """

    num_parameters = 1

    def __init__(self, p, masses, agreement):
        self.p, self.masses, a = (
            torch.tensor(list(v), dtype=torch.float64) for v in (p, masses, agreement)
        )
        self.slopes = (a / (self.masses @ a).sqrt())[:, None]
        self.groups = ("all",) * len(self.p)

    def success_and_jacobian(self, theta=None):
        return self.p, self.slopes

    def own_parameters(self):
        return torch.zeros(1, dtype=torch.float64)


@st.composite
def populations(draw):
    """Success rates on a grid of 64, so that neighbours are told apart by k in the thousands."""
    size = draw(st.integers(1, 12))
    p = draw(st.lists(st.integers(0, 63), min_size=size, max_size=size))
    a = draw(st.lists(st.integers(-50, 50), min_size=size, max_size=size))
    odds = draw(st.lists(st.integers(1, 20), min_size=size, max_size=size))
    masses = [o / sum(odds) for o in odds]
    assume(sum(x * m for x, m in zip(a, masses, strict=True)) > 1e-3)
    return Given([x / 64 for x in p], masses, [x / 10 for x in a])


def precise(curve, k):
    """E[w_k a] / k with sixty digits."""
    with mpmath.workdps(60):
        return mpmath.fsum(
            mpmath.mpf(float(m)) * mpmath.mpf(float(a)) * (1 - mpmath.mpf(float(p))) ** (k - 1)
            for m, a, p in zip(curve.masses, curve.agreement, curve.success, strict=True)
        )


@settings(deadline=None, max_examples=150)
@given(world=populations())
def test_the_rule_of_signs(world):
    curve = conflict(world)
    found = crossings(curve, up_to=math.inf)
    bound, sharp = sign_changes(curve), sign_changes(curve, cumulated=True)
    assert len(found) <= sharp <= bound
    # E[a] > 0 at k = 1, so that the parity is that of the sign of the hardest prompts
    assert (sharp - len(found)) % 2 == 0


@settings(deadline=None, max_examples=60)
@given(world=populations())
def test_the_crossings_tell_the_sign_at_every_k(world):
    """Against an independent evaluation in long arithmetic, on a grid and beside each crossing."""
    curve = conflict(world)
    found = crossings(curve, up_to=math.inf).tolist()
    ks = [
        *(1 + np.geomspace(1e-4, 3e4, 60)),
        *(1 + (k - 1) * f for k in found for f in (0.99, 1.01)),
    ]
    size = float(curve.masses @ curve.agreement.abs())
    for k in ks:
        value = precise(curve, k)
        if abs(value) < 1e-9 * size * precise_scale(curve, k):
            continue  # within rounding of a zero: the agreements are themselves rounded
        passed = sum(c < k for c in found)
        assert mpmath.sign(value) == (-1) ** passed


def precise_scale(curve, k):
    with mpmath.workdps(60):
        return max((1 - mpmath.mpf(float(p))) ** (k - 1) for p in curve.success)


@settings(deadline=None, max_examples=60)
@given(world=populations())
def test_for_large_k_the_hardest_prompts_decide(world):
    curve = conflict(world)
    groups = {}
    for p, m, a in zip(curve.success, curve.masses, curve.agreement, strict=True):
        groups[float(p)] = groups.get(float(p), 0.0) + float(m * a)
    hardest = next((total for p, total in sorted(groups.items()) if abs(total) > 1e-12), None)
    assume(hardest is not None and abs(hardest) > 1e-3)
    assert (precise(curve, 10**6) > 0) == (hardest > 0)


@settings(deadline=None)
@given(
    hard=st.lists(st.floats(0, 0.4), min_size=1, max_size=5),
    easy=st.lists(st.floats(0.5, 0.99), min_size=1, max_size=5),
    sizes=st.lists(st.floats(0.1, 1), min_size=10, max_size=10),
    hard_agree=st.booleans(),
)
def test_one_change_along_the_success_rate_means_one_threshold(hard, easy, sizes, hard_agree):
    """Hard prompts of one sign and easy ones of the other, so that the mean is positive."""
    sizes = [*sizes[: len(hard)], *sizes[5 : 5 + len(easy)]]
    # The side that agrees is scaled up: without that E[a] might be negative.
    agrees = [hard_agree] * len(hard) + [not hard_agree] * len(easy)
    agreement = [100 * s if agree else -s for s, agree in zip(sizes, agrees, strict=True)]
    curve = conflict(Given([*hard, *easy], [1 / len(sizes)] * len(sizes), agreement))
    found = crossings(curve, up_to=math.inf)
    assert sign_changes(curve) == 1
    assert len(found) == (0 if hard_agree else 1)


@pytest.mark.parametrize("count", range(1, 7))
def test_the_bound_is_attained(count):
    """Coefficients of prod (x - x_i) with x = (1 - p)^(k - 1): as many thresholds as changes."""
    places = [math.exp(-t) for t in np.linspace(0.3, 2.5, count)]
    coefficients = np.array([1.0])
    for x in places:
        coefficients = np.convolve(coefficients, [-x, 1.0])
    p = [1 - math.exp(-j) for j in range(count + 1)]
    curve = conflict(Given(p, [1 / (count + 1)] * (count + 1), coefficients))
    found = crossings(curve, up_to=math.inf)
    assert len(found) == count == sign_changes(curve) == sign_changes(curve, cumulated=True)
    expected = 1 - np.log(places)
    np.testing.assert_allclose(found, np.sort(expected), rtol=1e-6)


def test_the_order_of_the_success_rate_is_what_counts():
    """Sorted by agreement the sequence changes sign once, and yet there are two thresholds."""
    curve = conflict(Given([0.9, 0.5, 0.0], [1 / 3] * 3, [3.0, -2.0, 0.01]))
    assert len(crossings(curve)) == 2
    assert int((curve.agreement.sort().values.sign().diff() != 0).sum()) == 1
