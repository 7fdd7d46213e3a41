import numpy as np
import pytest

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.stats.tally import Tally, check_counts, order_array, tally

N = np.array([16, 16, 8, 16, 8, 8])
C = np.array([3, 16, 0, 3, 8, 1])


def test_it_holds_each_outcome_once():
    counts = tally(N, C)
    assert counts.num_prompts == 6
    assert sorted(zip(counts.n, counts.c, counts.weight, strict=True)) == [
        (8, 0, 1), (8, 1, 1), (8, 8, 1), (16, 3, 2), (16, 16, 1),
    ]  # fmt: skip


def test_its_moments_are_those_of_the_prompts():
    counts, ks = tally(N, C), np.array([1, 3, 8])
    table = pass_at_k(N[:, None], C[:, None], ks)
    values = counts.values(ks)
    assert counts.mean(values) == pytest.approx(table.mean(axis=0))
    assert counts.covariance(values) == pytest.approx(np.cov(table.T))
    assert counts.effective(values) == pytest.approx(
        table.sum(axis=0) ** 2 / (table**2).sum(axis=0)
    )


def test_nothing_carries_a_sum_of_zeros():
    assert tally(8, [0, 0]).effective(np.zeros((1, 2))).tolist() == [0, 0]


def test_it_takes_a_stack_of_multiplicities():
    weight = np.array([[2.0, 1.0], [0.0, 3.0]])
    counts = Tally(np.array([4.0, 4.0]), np.array([0.0, 2.0]), weight, 3)
    assert counts.mean(counts.values(np.array([1]))).tolist() == [[pytest.approx(1 / 6)], [0.5]]
    assert counts.covariance(counts.values(np.array([1, 2]))).shape == (2, 2, 2)


def test_equal_outcomes_are_put_together():
    n, c = np.full(4, 8.0), np.array([3.0, 1, 3, 0])
    weight = np.array([[1.0, 2, 3, 4], [0, 0, 5, 5]])
    found = Tally(n, c, weight, 10).collapsed()
    assert found.c.tolist() == [0, 1, 3]
    assert found.weight.tolist() == [[4, 2, 4], [5, 0, 5]]


@pytest.mark.parametrize("counts", [3, [3], [[1, 2], [3, 4]]])
def test_a_spread_needs_two_prompts(counts):
    with pytest.raises(UserError, match="at least 2 prompts"):
        check_counts(8, counts)


def test_orders_keep_the_order_given():
    assert order_array(np.array([8.0, 1.0, 8.0])).tolist() == [8, 1, 8]
    assert order_array(4).dtype == np.int64
