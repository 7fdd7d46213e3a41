"""Signs of four estimates and the errors of verdicts: populations, methods and rates."""

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.measurement import sample_bandit
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.estimating import decisions

THETA = (-1.0, -0.5)


@pytest.fixture(scope="module")
def world():
    return GaussianBandit(0.2, 0.2).sample(48, 16, seed=7)


def test_masses_that_leave_no_product(world):
    def product(share):
        return float(conflict(decisions._with_hard(world, share), THETA, [4]).inner_product)

    share = decisions.share_without_product(product, 0.3)
    made = decisions._with_hard(world, share)
    assert made.masses.sum() == pytest.approx(1)
    assert abs(product(share)) < 1e-12
    # By far smaller than its error would be, and than its neighbours.
    assert product(share - 0.01) > 1e-5
    assert product(share + 0.01) < -1e-5
    with pytest.raises(UserError, match="one sign at every share"):
        decisions.share_without_product(lambda share: 1.0, 0.9)


def test_the_methods_and_their_bias(world):
    samples = sample_bandit(world, THETA, 16, replications=300, seed=1)
    found = decisions.signs_by_method(samples, [1, 4], "fixed")
    assert tuple(found) == decisions.SIGN_METHODS
    truth = conflict(world, THETA, [1, 4]).inner_product.numpy()
    error = found["cross-fit"].std(axis=1) / 300**0.5
    assert (np.abs(found["cross-fit"].mean(axis=1) - truth) < 4 * error).all()
    # At k = 1 every weight is 1, known or not.
    np.testing.assert_allclose(found["shrunken"][0], found["cross-fit"][0], rtol=1e-10)
    assert found["shrunken"][1].mean() > truth[1] + 4 * found["shrunken"][1].std() / 300**0.5


def test_a_verdict_at_no_product_is_rarely_wrong(world):
    def product(share):
        return float(conflict(decisions._with_hard(world, share), THETA, [4]).inner_product)

    even = decisions._with_hard(world, decisions.share_without_product(product, 0.3))
    case = decisions._bandit(even, THETA, 16, None)
    rows = list(decisions._verdicts(case, 4, 250, seed=2))
    rates = {(row["by"], row["called"]): row for row in rows}
    assert set(rates) == {(b, c) for b in ("interval", "band") for c in ("conflict", "agreement")}
    for (by, called), row in rates.items():
        assert row["low"] <= row["rate"] <= row["high"]
        assert row["rate"] < 0.08
        assert rates["band", called]["rate"] <= rates["interval", called]["rate"], by
    # Moved away from 0 the same rows say which side is called.
    hard = decisions._bandit(decisions._with_hard(world, 0.2), THETA, 64, None)
    calls = {(r["by"], r["called"]): r["rate"] for r in decisions._verdicts(hard, 4, 50, seed=2)}
    assert calls["interval", "conflict"] > 0.9
    assert calls["interval", "agreement"] == 0
    assert torch.is_tensor(even.masses)
