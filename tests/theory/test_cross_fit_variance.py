"""The variance of a cross-fit is L + Q; with the gradients of other halves it comes out L + 2Q."""

import pytest
import torch

pytestmark = pytest.mark.statement("prop-cross-fit-variance")

# Vectors G(k) and G(1) of one half: five outcomes, correlated, in three dimensions.
_G = torch.Generator().manual_seed(11)
CHANCE = torch.tensor([0.1, 0.15, 0.2, 0.25, 0.3], dtype=torch.float64)
AT_K, AT_1 = torch.randn(2, 5, 3, dtype=torch.float64, generator=_G)
AT_1 = AT_1 + 0.5 * AT_K


def mean(values):
    """Over two independent halves: (5, 5) values."""
    return CHANCE @ values @ CHANCE


def variance(values):
    return CHANCE @ values.square() - (CHANCE @ values).square()


@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0])
def test_the_three_parts(scale):
    mean_k, mean_1 = CHANCE @ AT_K, CHANCE @ AT_1
    noise_k, noise_1 = AT_K - mean_k, AT_1 - mean_1
    g_k, g_1 = scale * mean_k, scale * mean_1
    at_k, at_1 = g_k + noise_k, g_1 + noise_1
    products = (at_k @ at_1.T + at_1 @ at_k.T) / 2  # C of the outcomes a and b
    assert mean(products) == pytest.approx(float(g_k @ g_1), abs=1e-14)
    total = mean(products.square()) - mean(products).square()
    first = variance(noise_k @ g_1 + noise_1 @ g_k) / 2
    second = mean((noise_k @ noise_1.T + noise_1 @ noise_k.T).square()) / 4
    torch.testing.assert_close(total, first + second, rtol=1e-12, atol=0)
    # Each half with the gradient of the other: columns are outcomes of the other half.
    moves = (at_k @ at_1.T + at_1 @ at_k.T) / 2
    given = CHANCE @ moves.square() - (CHANCE @ moves).square()
    torch.testing.assert_close(2 * (given @ CHANCE), first + 2 * second, rtol=1e-12, atol=0)


def test_one_term_alone_is_a_quarter_at_1_and_may_be_too_much_elsewhere():
    mean_k, mean_1 = CHANCE @ AT_K, CHANCE @ AT_1
    at_1 = (AT_1 - mean_1) @ mean_1
    assert variance(at_1) / 2 == pytest.approx(float(variance(2 * at_1) / 2) / 4, rel=1e-12)
    # Two terms of opposite signs take each other away.
    one, other = (AT_K - mean_k) @ mean_1, (AT_1 - mean_1) @ mean_k
    assert variance(one) > 1.2 * variance(one + other)
