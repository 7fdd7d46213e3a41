"""The tables of coefficients against their closed forms, in integers."""

from fractions import Fraction
from math import comb

import pytest

from passgrad.estimators import ESTIMATORS


def rho(n, c, k):
    return 1 - Fraction(comb(n - c, k), comb(n, k))


def leave_two_out(n, c, k):
    return Fraction(comb(n - c - 1, k - 1), comb(n - 2, k - 1)) if c < n else Fraction(0)


CLOSED = {
    "pkpo": (
        lambda n, c, k: Fraction(k, n),
        lambda n, c, k: Fraction(k, n) * rho(n - 1, c, k - 1),
    ),
    "pkpo-loo": (
        lambda n, c, k: Fraction(k, n) - Fraction(k, n - 1) * rho(n - 1, c - 1, k),
        lambda n, c, k: (
            Fraction(k, n) * rho(n - 1, c, k - 1) - Fraction(k, n - 1) * rho(n - 1, c, k)
        ),
    ),
    "pkpo-loo1": (
        lambda n, c, k: (
            Fraction(k * comb(n - c, k - 1), n * comb(n - 1, k - 1))
            if k > 1
            else Fraction(n - c, n * (n - 1))
        ),
        lambda n, c, k: Fraction(0) if k > 1 else Fraction(-c, n * (n - 1)),
    ),
    "centred-l2o": (
        lambda n, c, k: Fraction(k * (n - c), n * (n - 1)) * leave_two_out(n, c, k),
        lambda n, c, k: Fraction(-k * c, n * (n - 1)) * leave_two_out(n, c, k),
    ),
}


@pytest.mark.parametrize("n", [2, 3, 6, 11])
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name, n):
    one = ESTIMATORS[name]
    ks = list(range(1, n - one.spare + 1))
    plus, minus = one.tables(n, ks)
    for row, k in enumerate(ks):
        for c in range(n + 1):
            if c > 0:
                expected = float(CLOSED[name][0](n, c, k))
                assert float(plus[row, c]) == pytest.approx(expected, rel=1e-12, abs=1e-15)
            if c < n:
                expected = float(CLOSED[name][1](n, c, k))
                assert float(minus[row, c]) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_k_1_of_two_of_them_is_rloo_and_n_k_of_one_is_tang():
    for n in (2, 7):
        rloo = ESTIMATORS["rloo"].tables(n, [1])
        for name in ("pkpo-loo1", "centred-l2o"):
            for mine, theirs in zip(ESTIMATORS[name].tables(n, [1]), rloo, strict=True):
                assert mine[0].tolist() == pytest.approx(theirs[0].tolist())
        last, tang = (ESTIMATORS[name].tables(n, [n])[0] for name in ("pkpo-loo1", "tang-loo"))
        assert last[0].tolist() == pytest.approx(tang[0].tolist())


def test_the_two_leave_one_outs_of_pkpo_agree_with_the_baseline_up_to_its_scale():
    """pkpo less n / (n - 1) times the baseline of centred-l2o is pkpo-loo."""
    n, k = 8, 3
    plain, centred, loo = (
        ESTIMATORS[name].tables(n, [k])[0][0, 1:] for name in ("pkpo", "centred-l2o", "pkpo-loo")
    )
    baseline = (plain - centred) * n / (n - 1)
    assert (plain - baseline).tolist() == pytest.approx(loo.tolist())
