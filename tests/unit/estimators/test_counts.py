import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.estimators.counts import binomial_law, decisive_share


@settings(deadline=None)  # the machine may be busy
@given(n=st.integers(1, 60), share=st.floats(0, 1))
def test_the_share_is_the_quotient_of_binomials(n, share):
    k = 1 + round(share * (n - 1))
    table = decisive_share(n, [k])[0]
    exact = [math.comb(n - 1 - c, k - 1) / math.comb(n - 1, k - 1) for c in range(n)]
    torch.testing.assert_close(table, torch.tensor(exact, dtype=torch.float64), rtol=1e-11, atol=0)


def test_the_share_keeps_its_relative_accuracy_in_large_groups():
    n, k, c = 20000, 300, 150
    exact = math.comb(n - 1 - c, k - 1) / math.comb(n - 1, k - 1)
    assert float(decisive_share(n, [k])[0, c]) == pytest.approx(exact, rel=1e-10)


def test_the_binomial_law_is_one_in_all():
    law = binomial_law(torch.tensor([[0.0, 0.3], [1.0, 1e-9]]).double(), 300)
    assert law.shape == (2, 2, 301)
    torch.testing.assert_close(law.sum(-1), torch.ones(2, 2).double())
