"""Dividing by the group's deviation cancels every affine transform of a group of binary rewards."""

import pytest
import torch

from passgrad.estimators import ESTIMATORS, GRPO, advantages, get_estimator, is_group_standardised

pytestmark = pytest.mark.statement("prop-standardised")


def standardise(values):
    centred = values - values.mean(dim=1, keepdim=True)
    deviation = values.std(dim=1, keepdim=True)
    return torch.where(deviation > 1e-14, centred / deviation.clamp(min=1e-300), 0.0)


@pytest.fixture
def rewards():
    """Every count of right answers among 8."""
    return (torch.arange(8)[None] < torch.arange(9)[:, None]).double()


def test_what_is_left_of_any_transform_is_grpo_without_k(rewards):
    grpo = 8 * advantages(rewards, estimator=GRPO(epsilon=0))
    for name in ("pkpo", "pkpo-loo1", "centred-l2o", "plug-in", "maxrl"):
        for k in (2, 4, 7):
            made = advantages(rewards, None if name == "maxrl" else k, estimator=name)
            left = standardise(made)
            paid = made.std(dim=1) > 1e-14
            torch.testing.assert_close(left[paid], grpo[paid])
            assert paid.any()


def test_random_transforms_of_a_group_come_out_alike_up_to_the_sign(rewards):
    generator = torch.Generator().manual_seed(0)
    offset, slope = torch.randn(2, 9, 1, dtype=torch.float64, generator=generator)
    left = standardise(offset + slope * rewards)
    torch.testing.assert_close(left, slope.sign() * standardise(rewards))


def test_with_graded_rewards_it_does_not_cancel():
    generator = torch.Generator().manual_seed(0)
    graded = torch.rand(5, 8, dtype=torch.float64, generator=generator)
    two, six = (standardise(advantages(graded, k, estimator="centred-l2o")) for k in (2, 6))
    assert (two - six).abs().max() > 0.1


def test_none_of_the_estimators_of_pass_at_k_looks_standardised(rewards, case):
    for name in sorted(ESTIMATORS):
        one = get_estimator(name)
        made = one.advantages(rewards, {"k": 4, "n": None, "none": None}[one.takes])
        left = standardise(made)
        with case(estimator=name):
            assert not is_group_standardised(made)
            assert is_group_standardised(left) == bool((left != 0).any())
