"""What the base class adds, on a world that offers the three required methods and nothing else."""

import math
import weakref

import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit
from passgrad.worlds.base import World, inner_product

THETA = (-1.0, 0.5)
BANDIT = GaussianBandit().sample(4, 3, seed=0)


class Plain(World):
    """The bandit above as a world of large parameters sees it: float32, one row at a time."""

    dtype = torch.float32
    num_parameters = 2

    def __init__(self, dtype=torch.float32):
        self.dtype = dtype
        self.masses, self.groups = BANDIT.masses, BANDIT.groups
        self.vectors = []  # weak references to every gradient that was handed out
        self.most_alive = 0

    def success(self, theta=None):
        return BANDIT.success(self.parameters(theta).double())

    def vjp(self, theta, weights):
        assert len(weights) == 1  # a large world must not be asked for several rows
        p, rows = BANDIT.vjp(self.parameters(theta).double(), weights)
        rows = rows.to(self.dtype)
        self.vectors.append(weakref.ref(rows))
        self.most_alive = max(self.most_alive, sum(v() is not None for v in self.vectors))
        return p, rows

    def jvp(self, theta, directions):
        return BANDIT.jvp(self.parameters(theta).double(), directions.double())


class WithParameters(Plain):
    def own_parameters(self):
        return torch.tensor(THETA, dtype=self.dtype)


def test_the_defaults_agree_with_the_closed_forms():
    plain = Plain(torch.float64)
    kernel = plain.kernel(THETA)
    torch.testing.assert_close(kernel, BANDIT.kernel(THETA), atol=1e-14, rtol=0)
    assert torch.equal(kernel, kernel.T)
    p, gradient = plain.objective_gradient(THETA, PassAtK(5))
    expected_p, expected = BANDIT.objective_gradient(THETA, PassAtK(5))
    torch.testing.assert_close(p, expected_p)
    torch.testing.assert_close(gradient, expected)
    value = plain.objective_value(THETA, PassAtK(5))
    assert value == pytest.approx(float(BANDIT.masses @ (1 - (1 - p) ** 5)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_conflict_is_the_same_row_by_row(dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    curve, expected = (conflict(w, THETA, [1, 2, 9]) for w in (Plain(dtype), BANDIT))
    for name in ("inner_product", "norm", "cosine", "agreement"):
        assert getattr(curve, name).dtype == torch.float64
        torch.testing.assert_close(
            getattr(curve, name), getattr(expected, name), atol=tolerance, rtol=tolerance
        )
    assert curve.norm_at_1 == pytest.approx(expected.norm_at_1, rel=tolerance)


def test_at_most_two_gradients_are_alive():
    plain = Plain()
    conflict(plain, THETA, [1, 2, 3, 4, 5])
    # grad J_1 serves k = 1 as it is.
    assert len(plain.vectors) == 5
    assert plain.most_alive == 2


def test_the_kernel_needs_one_gradient_at_a_time():
    plain = Plain()
    plain.kernel(THETA)
    assert len(plain.vectors) == plain.num_prompts
    assert plain.most_alive <= 2


def test_parameters():
    plain = WithParameters()
    assert torch.equal(plain.parameters(), torch.tensor(THETA))
    assert plain.parameters([1, 2]).dtype == torch.float32
    theta = torch.tensor(THETA, requires_grad=True)
    given = plain.parameters(theta)
    assert not given.requires_grad
    assert given.data_ptr() == theta.data_ptr()  # nothing is copied
    assert conflict(plain).agreement.tolist() == conflict(plain, THETA).agreement.tolist()


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        (None, "Plain has no parameters of its own: pass theta"),
        ([1.0], r"theta has shape \(1,\), but Plain takes \(2,\)"),
        ([[1.0, 2.0]], r"theta has shape \(1, 2\)"),
        ([1.0, math.nan], r"theta\[1\] is nan"),
        ([-math.inf, 0.0], r"theta\[0\] is -inf"),
        (["a", "b"], "theta must be a vector of numbers"),
        ([[1.0], [1.0, 2.0]], "theta must be a vector of numbers"),
    ],
)
def test_bad_parameters_are_refused(theta, message):
    with pytest.raises(UserError, match=message) as caught:
        Plain().success(theta)
    assert "\n" not in str(caught.value)


def test_inner_products_are_added_up_in_float64():
    generator = torch.Generator().manual_seed(0)
    u, v = (1 + torch.rand(10**7, generator=generator) for _ in range(2))
    exact = math.fsum((u.double() * v.double()).tolist())
    assert inner_product(u, v) == pytest.approx(exact, rel=1e-14)
    # It has more than one piece, and the last of them is a part.
    assert len(u) % (1 << 22) != 0
