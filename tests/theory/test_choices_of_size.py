"""Sums, means and unsolved prompts: they change the size of the product and nothing else."""

import pytest
import torch

from passgrad.interference import conflict

pytestmark = pytest.mark.statement("prop-choices-of-size")

K = 32
THETA = torch.zeros(5, dtype=torch.float64)  # a given world does not look at it


def draw(seed, unsolved):
    """Rates and gradients of nine prompts; the unsolved ones have the largest weight, K."""
    generator = torch.Generator().manual_seed(seed)
    p = 0.2 * torch.rand(9, generator=generator, dtype=torch.float64)
    gradients = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    p[:unsolved] = 0
    return p, gradients


def test_sum_and_unsolved_prompts(given_world, case):
    close = {"rtol": 1e-12, "atol": 1e-14}
    for seed in range(20):
        unsolved = 1 + seed % 4
        p, gradients = draw(seed, unsolved)
        gradients[:unsolved] = 0
        curve = conflict(given_world(p, gradients), THETA, [K])
        kept = conflict(given_world(p[unsolved:], gradients[unsolved:]), THETA, [K])
        with case(seed=seed):
            assert (curve.weights[0, :unsolved] == K).all()
            sum_of_prompts = curve.weights @ curve.agreement
            torch.testing.assert_close(sum_of_prompts, 9 * curve.inner_product, **close)
            expected = curve.inner_product * 81 / (9 - unsolved) ** 2
            torch.testing.assert_close(kept.inner_product, expected, **close)
            torch.testing.assert_close(kept.cosine, curve.cosine, **close)


def test_with_a_gradient_of_their_own_unsolved_prompts_matter(given_world):
    p, gradients = draw(0, 2)
    curve = conflict(given_world(p, gradients), THETA, [K])
    kept = conflict(given_world(p[2:], gradients[2:]), THETA, [K])
    assert abs(kept.cosine - curve.cosine) > 0.1
