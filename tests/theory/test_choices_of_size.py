"""Sums, means and unsolved prompts: they change the size of the product and nothing else."""

import pytest
import torch

pytestmark = pytest.mark.statement("prop-choices-of-size")


def product(w, g):
    """C and the cosine, by the definitions."""
    first, other = g.mean(0), (w[:, None] * g).mean(0)
    inner = first @ other
    return inner, inner / (first.norm() * other.norm())


def test_sum_and_unsolved_prompts(case):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        g = torch.randn(9, 5, generator=generator, dtype=torch.float64)
        w = 32 * torch.rand(9, generator=generator, dtype=torch.float64)
        unsolved = 1 + seed % 4
        g[:unsolved] = 0
        w[:unsolved] = 32
        inner, cosine = product(w, g)
        agreement = g @ g.mean(0)
        kept, same = product(w[unsolved:], g[unsolved:])
        close = {"rtol": 1e-12, "atol": 1e-14}
        with case(seed=seed):
            torch.testing.assert_close((w * agreement).sum(), 9 * inner, **close)
            torch.testing.assert_close(kept, inner * 81 / (9 - unsolved) ** 2, **close)
            torch.testing.assert_close(same, cosine, **close)


def test_with_a_gradient_of_their_own_unsolved_prompts_matter():
    g = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    w = torch.tensor([1.0, 3.0]).double()
    assert abs(product(w, g)[1] - product(w[1:], g[1:])[1]) > 0.1
