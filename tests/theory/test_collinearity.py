"""Per prompt, grad J_k(x) = w_k(x) grad J_1(x): a single prompt never conflicts with itself."""

import pytest
import torch

from passgrad.objectives import PassAtK

pytestmark = pytest.mark.statement("prop-collinear")


@pytest.mark.parametrize("k", [1, 2, 3.5, 10, 32])
def test_the_pass_at_k_gradient_of_a_prompt_is_its_pass_at_1_gradient_times_the_weight(policy, k):
    weights = PassAtK(k).weight(policy.success())
    for x in range(policy.num_prompts):
        of_pass_at_1 = policy.gradient(lambda p, x=x: p[x])
        of_pass_at_k = policy.gradient(lambda p, x=x: 1 - (1 - p[x]) ** k)
        torch.testing.assert_close(of_pass_at_k, weights[x] * of_pass_at_1, atol=1e-12, rtol=0)
        assert weights[x] > 0


def test_a_weight_with_another_exponent_is_refuted(policy):
    p = policy.success()
    of_pass_at_1 = policy.gradient(lambda p: p[0])
    of_pass_at_k = policy.gradient(lambda p: 1 - (1 - p[0]) ** 3)
    assert (of_pass_at_k - 3 * (1 - p[0]) ** 3 * of_pass_at_1).abs().max() > 1e-6
