"""Per prompt, grad J_k(x) = w_k(x) grad J_1(x): a single prompt never conflicts with itself."""

import pytest
import torch

from passgrad.objectives import PassAtK
from passgrad_book.experiments.checks import identities

pytestmark = pytest.mark.statement("prop-collinear")


def test_the_pass_at_k_gradient_of_a_prompt_is_its_pass_at_1_gradient_times_the_weight(
    setting, case
):
    world, theta, _ = setting
    p, of_pass_at_1 = world.vjp(theta, torch.eye(world.num_prompts, dtype=torch.float64))
    for k in (1, 2, 3.5, 10, 32):
        weights = PassAtK(k).weight(p)
        for x, row in enumerate(of_pass_at_1):
            of_pass_at_k = setting.gradient(lambda p, x=x, k=k: 1 - (1 - p[x]) ** k)
            with case(k=k, prompt=x):
                torch.testing.assert_close(of_pass_at_k, weights[x] * row, atol=1e-12, rtol=0)
                assert weights[x] > 0
    assert identities.weighted_gradient([setting])["one_minus_cosine"] < 1e-12


def test_a_weight_with_another_exponent_is_refuted(setting, monkeypatch):
    monkeypatch.setattr(PassAtK, "weight", lambda self, p: self.k * (1 - p) ** self.k)
    assert identities.weighted_gradient([setting])["gap"] > 1e-6
