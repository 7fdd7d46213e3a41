import json
import math

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.orders import Orders, check_k, real_orders, whole_orders


@pytest.mark.parametrize(
    "ks", [(8, 1, 2, 8), {1, 2, 8}, np.array([8.0, 2, 1]), torch.tensor([2, 8, 1]), range(1, 9, 7)]
)
def test_orders_are_distinct_and_ascend(ks):
    orders = Orders.of(ks)
    assert orders == tuple(sorted({int(k) for k in ks}))
    assert all(type(k) is int for k in orders)
    assert orders.array.dtype == np.int64
    assert json.loads(json.dumps(orders)) == list(orders)


def test_a_single_order_and_that_of_pass_at_1():
    assert Orders.of(4) == Orders.of(np.int64(4)) == (4,)
    assert Orders.of([8, 4]).with_one() == (1, 4, 8) == Orders.of([8, 4]).with_one().with_one()
    assert Orders.parse("8, 1,8") == (1, 8)


def test_given_orders_stay_as_they_are():
    assert whole_orders([8, 1.0, 8]) == (8, 1, 8)
    assert real_orders(torch.tensor([2.5, 1])) == (2.5, 1.0)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "4", None, math.nan, math.inf, [1]])
def test_other_numbers_are_no_whole_orders(k):
    with pytest.raises(UserError, match="k must be a whole number of at least 1, got"):
        Orders.of([k])


@pytest.mark.parametrize("k", [0.5, True, "4", None, math.nan, math.inf])
def test_other_numbers_are_no_real_orders(k):
    with pytest.raises(UserError, match="k must be a"):
        check_k(k)


@pytest.mark.parametrize("make", [Orders.of, whole_orders, real_orders])
def test_at_least_one_order(make):
    with pytest.raises(UserError, match="ks is empty: name at least one k"):
        make([])


def test_a_text_that_lists_no_orders():
    with pytest.raises(UserError, match="--ks '1,x' is not a list of whole numbers such as 1,2,8"):
        Orders.parse("1,x", "--ks")
    with pytest.raises(UserError, match="got 0"):
        Orders.parse("1,0")
