import doctest
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad import objectives
from passgrad.errors import UserError
from passgrad.objectives import ArcsinSqrt, Log, LogPassAtK, Mixture, PassAtK

rates = st.floats(0, 1)
orders = st.floats(1, 300)

EVERY = [
    PassAtK(1),
    PassAtK(6.5),
    ArcsinSqrt(),
    ArcsinSqrt(1.5),
    ArcsinSqrt(2),
    ArcsinSqrt(16),
    Log(),
    Log(order=1),
    Log(order=9),
    LogPassAtK(1),
    LogPassAtK(12),
    Mixture((PassAtK(1), PassAtK(8), Log(order=3)), (0.5, 0.25, 2)),
]
every = pytest.mark.parametrize("objective", EVERY, ids=lambda objective: objective.label)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@settings(deadline=None)  # the machine may be busy
@given(p=rates, k=st.integers(1, 60))
def test_value_and_weight_are_the_closed_forms(p, k):
    assert float(PassAtK(k).value(tensor(p))) == pytest.approx(1 - (1 - p) ** k, abs=1e-14)
    assert float(PassAtK(k).weight(tensor(p))) == pytest.approx(k * (1 - p) ** (k - 1), rel=1e-12)


def derivative(objective, p):
    point = p.clone().requires_grad_()
    return torch.autograd.grad(objective.value(point).sum(), point)[0]


@settings(deadline=None)  # the machine may be busy
@given(p=st.floats(0.001, 0.999), k=orders)
def test_the_weight_is_the_derivative_of_the_value(p, k):
    p = tensor(p)
    for objective in (PassAtK(k), ArcsinSqrt(k), LogPassAtK(k)):
        torch.testing.assert_close(
            objective.weight(p), derivative(objective, p), rtol=1e-9, atol=1e-12
        )


@every
def test_the_weight_of_each_is_the_derivative_of_its_value(objective):
    p = torch.linspace(0.001, 0.999, 333, dtype=torch.float64)
    torch.testing.assert_close(objective.weight(p), derivative(objective, p), rtol=1e-9, atol=1e-12)


@every
def test_each_rises_and_none_is_a_nan(objective):
    p = torch.cat([tensor(0.0, 1e-300, 1e-18), torch.linspace(1e-9, 1, 500, dtype=torch.float64)])
    value, weight = objective.value(p), objective.weight(p)
    assert not value.isnan().any()
    assert not weight.isnan().any()
    assert (value.diff() >= 0).all()
    assert (weight >= 0).all()


@settings(deadline=None)  # the machine may be busy
@given(p=st.floats(1e-6, 1 - 1e-6), k=st.integers(1, 40))
def test_the_arcsine_is_its_closed_form(p, k):
    failure = (1 - p) ** k
    value, weight = ArcsinSqrt(k).value(tensor(p)), ArcsinSqrt(k).weight(tensor(p))
    assert float(value) == pytest.approx(2 / k * math.asin(math.sqrt(1 - failure)), abs=1e-7)
    # pass@k training divides the pass@k reward by its deviation, and its gradient weight by k
    deviation = math.sqrt((1 - failure) * failure)
    expected = k * (1 - p) ** (k - 1) / (k * deviation)
    assert float(weight) == pytest.approx(expected, rel=1e-6)


def test_grpo_weighs_by_the_inverse_deviation_of_the_reward():
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    torch.testing.assert_close(ArcsinSqrt().weight(p), (p * (1 - p)) ** -0.5)
    # from the limits printed for k = 4 (reference values, 4 digits)
    at_four = ArcsinSqrt(4).weight(tensor(0.02, 0.3, 0.9))
    assert [round(w, 3) for w in at_four.tolist()] == [3.517, 0.803, 0.1]


def test_the_arcsine_keeps_its_accuracy_near_one():
    # arcsin sqrt(1 - d) = pi/2 - sqrt(d) + O(d^1.5); with k = 4, d = (1 - p)^4 = 1e-20
    missing = math.pi / 2 - 2 * float(ArcsinSqrt(4).value(tensor(1 - 1e-5)))
    assert missing == pytest.approx(1e-10, rel=1e-5)


def test_the_arcsine_of_pass_at_1_is_concave_below_one_half_only():
    weight = ArcsinSqrt().weight(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert (weight[:51].diff() < 0).all()
    assert (weight[50:].diff() > 0).all()


@settings(deadline=None)  # the machine may be busy
@given(p=rates, order=st.integers(1, 80))
def test_the_truncated_logarithm_is_the_mixture_of_pass_at_j_over_j(p, order):
    mixture = Mixture(
        [PassAtK(j) for j in range(1, order + 1)], [1 / j for j in range(1, order + 1)]
    )
    constant = sum(1 / j for j in range(1, order + 1))
    log = Log(order=order)
    torch.testing.assert_close(log.weight(tensor(p)), mixture.weight(tensor(p)))
    torch.testing.assert_close(log.value(tensor(p)) + constant, mixture.value(tensor(p)))


def test_the_truncated_logarithm_tends_to_the_logarithm():
    p = torch.linspace(0.05, 1, 96, dtype=torch.float64)
    torch.testing.assert_close(Log(order=800).value(p), Log().value(p))
    torch.testing.assert_close(Log(order=800).weight(p), Log().weight(p))
    assert float(Log(order=3).value(tensor(0.1))) > float(Log().value(tensor(0.1)))
    torch.testing.assert_close(Log(order=1).weight(p), PassAtK(1).weight(p))
    torch.testing.assert_close(LogPassAtK(1).weight(p), Log().weight(p))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("order", [1, 7, 80])
def test_the_truncated_logarithm_weighs_the_least_success_rates_by_its_order(order, dtype):
    least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # of all above zero
    p = torch.tensor([0.0, least, 3 * least, 2.0**20 * least, 2e-38], dtype=dtype)
    assert float(p[1]) > 0
    assert Log(order=order).weight(p).tolist() == [order] * 5
    # from there on the weight falls, and by what the next term of the series says
    q = torch.logspace(-6, -3, 7, dtype=torch.float64)
    torch.testing.assert_close(
        Log(order=order).weight(q), order * (1 - (order - 1) / 2 * q), rtol=float(order**2) * 1e-6,
        atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("order", [1, 800, 2**53 + 1, 10**30, 10**100, 10**300])
def test_the_weight_of_the_truncated_logarithm_to_many_digits(order, dtype):
    rates = [0, 5e-324, 1e-310, 2.3e-308, 1e-200, 1e-45, 1e-39, 1e-20, 1e-9, 0.01, 0.5, 0.999, 1]
    p = torch.tensor(rates, dtype=dtype)
    with mpmath.workdps(60):
        exact = [
            order if q == 0 else -mpmath.expm1(order * mpmath.log1p(-mpmath.mpf(q))) / mpmath.mpf(q)
            for q in p.tolist()
        ]
        # one that is too large for the dtype is infinite
        expected = torch.tensor([float(w) for w in exact], dtype=torch.float64).to(dtype)
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(Log(order=order).weight(p), expected, rtol=tolerance, atol=0)


def test_the_infinite_ends():
    ends = tensor(0.0, 1.0)
    inf = math.inf
    assert ArcsinSqrt().weight(ends).tolist() == [inf, inf]
    assert ArcsinSqrt(1.5).weight(ends).tolist() == [inf, inf]
    assert ArcsinSqrt(2).weight(ends).tolist() == [inf, 1]
    assert ArcsinSqrt(5).weight(ends).tolist() == [inf, 0]
    assert ArcsinSqrt(5).value(ends).tolist() == [0, pytest.approx(math.pi / 5)]
    assert Log().weight(ends).tolist() == [inf, 1]
    assert Log().value(ends).tolist() == [-inf, 0]
    assert Log(order=7).weight(ends).tolist() == [7, 1]
    assert Log(order=2).value(ends).tolist() == [-1.5, 0]
    assert LogPassAtK(5).weight(ends).tolist() == [inf, 0]
    assert LogPassAtK(5).value(ends).tolist() == [-inf, 0]


def test_a_mixture_adds_values_and_weights():
    p = torch.linspace(0, 1, 11, dtype=torch.float64)
    both = Mixture([PassAtK(1), PassAtK(8)], [0.25, 3])
    torch.testing.assert_close(both.value(p), 0.25 * p + 3 * (1 - (1 - p) ** 8))
    torch.testing.assert_close(both.weight(p), 0.25 + 24 * (1 - p) ** 7)
    assert hash(both) == hash(Mixture((PassAtK(1), PassAtK(8)), (0.25, 3)))
    # 0 * inf would be a nan
    finite = Mixture([PassAtK(1), Log()], [1, 0])
    assert finite.weight(tensor(0.0)).tolist() == [1]
    assert finite.label == "1 pass@1"


@pytest.mark.parametrize(
    ("coefficients", "said"),
    [
        ([1.0], "2 objectives and 1 coefficients"),
        ([1.0, -0.5], "at least 0, got -0.5"),
        ([1.0, math.nan], "at least 0, got nan"),
        ([math.inf, 1.0], "at least 0, got inf"),
        ([0.0, 0.0], "at least one positive"),
    ],
)
def test_a_mixture_without_sense_is_refused(coefficients, said):
    with pytest.raises(UserError, match=said):
        Mixture([PassAtK(1), PassAtK(2)], coefficients)


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
    for objective in EVERY:
        for result in (objective.value(p), objective.weight(p)):
            assert result.shape == p.shape
            assert result.dtype == dtype


def test_labels():
    assert PassAtK(10).label == "pass@10"
    assert PassAtK(2.5).label == "pass@2.5"
    assert ArcsinSqrt(4).label == "arcsin pass@4"
    assert [Log().label, Log(order=8).label] == ["log", "log to order 8"]
    assert LogPassAtK(4).label == "log pass@4"
    assert Mixture([PassAtK(1), Log()], [0.5, 2]).label == "0.5 pass@1 + 2 log"


@pytest.mark.parametrize("bad", [0, 0.999, -3, math.nan, math.inf, "10", None, True])
def test_other_k_are_refused_in_one_line(bad):
    for kind in (PassAtK, ArcsinSqrt, LogPassAtK):
        with pytest.raises(UserError, match="k must be a") as caught:
            kind(bad)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [0, -1, 2.0, "3", True])
def test_other_orders_of_the_logarithm_are_refused(bad):
    with pytest.raises(UserError, match="order must be a whole number"):
        Log(order=bad)


@pytest.mark.parametrize("good", [1, 1.0, np.int64(3), np.float32(2.5)])
def test_numbers_of_every_kind_are_taken(good):
    assert PassAtK(good).weight(tensor(0.0)) == float(good)


def test_docstrings():
    assert doctest.testmod(objectives).failed == 0
