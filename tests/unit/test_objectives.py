import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad import objectives
from passgrad.errors import UserError
from passgrad.objectives import PassAtK

rates = st.floats(0, 1)
orders = st.floats(1, 300)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@settings(deadline=None)  # the machine may be busy
@given(p=rates, k=st.integers(1, 60))
def test_value_and_weight_are_the_closed_forms(p, k):
    assert float(PassAtK(k).value(tensor(p))) == pytest.approx(1 - (1 - p) ** k, abs=1e-14)
    assert float(PassAtK(k).weight(tensor(p))) == pytest.approx(k * (1 - p) ** (k - 1), rel=1e-12)


@settings(deadline=None)  # the machine may be busy
@given(p=st.floats(0.001, 0.999), k=orders)
def test_the_weight_is_the_derivative_of_the_value(p, k):
    point = tensor(p).requires_grad_()
    (derivative,) = torch.autograd.grad(PassAtK(k).value(point).sum(), point)
    torch.testing.assert_close(PassAtK(k).weight(tensor(p)), derivative, rtol=1e-10, atol=1e-12)


def test_small_success_rates_keep_their_relative_accuracy():
    p = tensor(1e-18)
    assert float(PassAtK(1000).value(p)) == pytest.approx(1e-15, rel=1e-12)
    assert 1 - (1 - float(p)) ** 1000 == 0  # what the naive formula makes of it


def test_the_ends():
    ends = tensor(0.0, 1.0)
    assert PassAtK(1).weight(ends).tolist() == [1, 1]
    assert PassAtK(7).weight(ends).tolist() == [7, 0]
    assert PassAtK(1).value(ends).tolist() == [0, 1]
    assert PassAtK(7).value(ends).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(dtype):
    p = torch.rand(2, 3, dtype=dtype)
    for result in (PassAtK(4).value(p), PassAtK(4).weight(p)):
        assert result.shape == p.shape
        assert result.dtype == dtype


def test_labels():
    assert PassAtK(10).label == "pass@10"
    assert PassAtK(2.5).label == "pass@2.5"


@pytest.mark.parametrize("bad", [0, 0.999, -3, math.nan, math.inf, "10", None, True])
def test_other_k_are_refused_in_one_line(bad):
    with pytest.raises(UserError, match="k must be a") as caught:
        PassAtK(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("good", [1, 1.0, np.int64(3), np.float32(2.5)])
def test_numbers_of_every_kind_are_taken(good):
    assert PassAtK(good).weight(tensor(0.0)) == float(good)


def test_docstrings():
    assert doctest.testmod(objectives).failed == 0
