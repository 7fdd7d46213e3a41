"""The second derivative of pass@k along a vector, estimated without bias: every outcome summed."""

import itertools

import pytest
import torch

from passgrad.estimators import ESTIMATORS, get_estimator
from passgrad.measurement.second_order import pair_weights, path_derivatives
from passgrad.objectives import PassAtK

pytestmark = pytest.mark.statement("prop-second-order")

# Five actions, of which the first two are right; logits that are no linear function of theta, so
# that the second derivative of log pi differs between answers. v is a direction, eta the parameter.
_GENERATOR = torch.Generator().manual_seed(3)
LEVEL, TILT, BEND = 0.8 * torch.randn(3, 5, dtype=torch.float64, generator=_GENERATOR)
RIGHT = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
UNBIASED = [name for name, one in ESTIMATORS.items() if one.unbiased and one.takes == "k"]


def log_policy(eta):
    return (LEVEL + eta * TILT + eta**2 * BEND).log_softmax(dim=0)


def pass_at_k(eta, k):
    return PassAtK(k).value((log_policy(eta).exp() * RIGHT).sum())


def derivatives(function):
    """The value of a function of one number, and its first and second derivative, at 0."""
    eta = torch.zeros((), dtype=torch.float64)
    first = torch.func.jacfwd(function)
    return function(eta), first(eta), torch.func.jacfwd(first)(eta)


_, SLOPES, CURVATURES = derivatives(log_policy)
POLICY = log_policy(torch.zeros((), dtype=torch.float64)).exp()


def outcomes(n):
    """Rewards, slopes and curvatures (outcomes, n) of every sample of n answers; their chances."""
    actions = torch.tensor(list(itertools.product(range(len(RIGHT)), repeat=n)))
    return RIGHT[actions], SLOPES[actions], CURVATURES[actions], POLICY[actions].prod(dim=1)


def settings_of(name):
    spare = get_estimator(name).spare
    return [(n, k) for n in range(2, 6) for k in range(1, n - spare + 1)]


def test_scores_and_their_squares_have_mean_zero():
    torch.testing.assert_close(POLICY @ SLOPES, POLICY.new_zeros(()), atol=1e-14, rtol=0)
    second = POLICY @ (SLOPES.square() + CURVATURES)
    torch.testing.assert_close(second, POLICY.new_zeros(()), atol=1e-14, rtol=0)
    # The answers differ, else the test could not tell s^2 + h from a constant.
    assert CURVATURES.std() > 0.1
    assert SLOPES.std() > 0.1


@pytest.mark.parametrize("name", UNBIASED)
def test_both_derivatives_are_unbiased(name):
    for n, k in settings_of(name):
        rewards, slopes, curvatures, chances = outcomes(n)
        found = path_derivatives(rewards, slopes, curvatures, [k], get_estimator(name))
        _, first, second = derivatives(lambda eta, k=k: pass_at_k(eta, k))
        torch.testing.assert_close(chances @ found[0][0], first, atol=1e-12, rtol=0)
        torch.testing.assert_close(chances @ found[1][0], second, atol=1e-12, rtol=0)
        assert abs(float(second)) > 1e-3


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_pairs_alone_estimate_the_product_of_means(n):
    """By the definition, a sum over ordered pairs of distinct answers."""
    rewards, slopes, _, chances = outcomes(n)
    ks = list(range(1, n + 1))
    weights = pair_weights(n, ks)
    total = torch.zeros(len(ks), len(rewards), dtype=torch.float64)
    c = rewards.sum(dim=1).long()
    for a, b in itertools.permutations(range(n), 2):
        kinds = (rewards[:, a] + rewards[:, b]).long()
        of_kind = torch.stack([weights.wrong, weights.mixed, weights.right])
        total += of_kind[kinds, :, c].T * slopes[:, a] * slopes[:, b]
    p, slope = POLICY @ RIGHT, (POLICY * RIGHT) @ SLOPES
    for k, row in zip(ks, total, strict=True):
        expected = -k * (k - 1) * (1 - p) ** max(k - 2, 0) * slope**2
        torch.testing.assert_close(chances @ row, expected, atol=1e-12, rtol=0)
    # The sums over pairs that are used are these: with advantages 0 nothing else is left.
    closed = path_derivatives(rewards, slopes, -slopes.square(), ks, get_estimator("pkpo"))[1]
    torch.testing.assert_close(closed, total, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [3, 5])
def test_the_difference_of_the_weights_is_what_matters(n):
    """n (n - 1) (both right - 2 mixed + both wrong) = -k (k - 1) S_c', whatever the baseline."""
    for k in range(2, n + 1):
        weights = pair_weights(n, [k])
        others = torch.arange(n - 1)
        for c in others.tolist():
            got = weights.right[0, c + 2] - 2 * weights.mixed[0, c + 1] + weights.wrong[0, c]
            chosen = list(itertools.combinations(range(n - 2), k - 2))
            missed = sum(all(i >= c for i in group) for group in chosen) / len(chosen)
            assert abs(float(got) * n * (n - 1) + k * (k - 1) * missed) < 1e-12


def test_prompts_of_one_kind_add_nothing():
    slopes = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rewards = torch.stack([torch.zeros(6), torch.ones(6)]).double()
    for found in path_derivatives(rewards, slopes, slopes, [1, 2, 5], get_estimator("pkpo-loo1")):
        assert torch.equal(found, torch.zeros_like(found))


def test_replications_stand_in_front():
    rewards, slopes, curvatures, _ = outcomes(3)
    loo = get_estimator("pkpo-loo1")
    flat = path_derivatives(rewards, slopes, curvatures, [1, 3], loo)
    block = [one.view(5, 25, 3) for one in (rewards, slopes, curvatures)]
    for a, b in zip(flat, path_derivatives(*block, [1, 3], loo), strict=True):
        torch.testing.assert_close(a.view(2, 5, 25), b, atol=0, rtol=0)
