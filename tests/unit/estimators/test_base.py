import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import ESTIMATORS, get_estimator


def test_shapes_of_the_analysis_follow_p_and_k():
    p = torch.rand(2, 3, dtype=torch.float64) * 0.8 + 0.1
    for name, one in ESTIMATORS.items():
        k = {"k": 3, "n": 6, "none": None}[one.takes]
        for method in (one.effective_weight, one.bias_factor, one.objective, one.variance):
            single = method(p, 6, k)
            assert single.shape == (2, 3), (name, method)
            assert single.dtype == torch.float64
            ks = [3, 4] if one.takes == "k" else [6, 6] if one.takes == "n" else [1, 5]
            many = method(p, 6, ks)
            assert many.shape == (2, 2, 3), (name, method)
            if one.takes != "none":
                torch.testing.assert_close(many[0], single)
        assert one.payoff(6, k).shape == (7,)
        assert one.effective_weight(0.5, 6, k).shape == ()


def test_an_estimator_without_k_is_held_against_any_k():
    p = torch.tensor([0.2, 0.7], dtype=torch.float64)
    rloo = get_estimator("rloo")
    torch.testing.assert_close(rloo.bias_factor(p, 5, 3), 1 / (3 * (1 - p) ** 2))
    torch.testing.assert_close(rloo.effective_weight(p, 5, 3), torch.ones(2).double())


def test_the_ends_of_the_success_rate():
    for name, one in ESTIMATORS.items():
        k = {"k": 3, "n": 6, "none": None}[one.takes]
        weight = one.effective_weight(torch.tensor([0.0, 1.0]), 6, k)
        assert torch.isfinite(weight).all(), name
    assert get_estimator("pkpo").effective_weight([0.0, 1.0], 6, 3).tolist() == [3, 0]
    assert get_estimator("pkpo").objective([0.0, 1.0], 6, 3).tolist() == [0, 1]


def test_large_numbers_of_samples():
    weight = get_estimator("pkpo-loo1").effective_weight(0.01, 4096, 256)
    assert float(weight) == pytest.approx(256 * 0.99**255, rel=1e-10)


def test_variance_needs_rates_inside():
    with pytest.raises(UserError, match="strictly between 0 and 1"):
        get_estimator("pkpo").variance([0.0, 0.5], 4, 2)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), "half"])
def test_rates_outside_are_refused(p):
    with pytest.raises(UserError, match="success rates must"):
        get_estimator("pkpo").effective_weight(p, 4, 2)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "4"])
def test_orders_that_are_none(k):
    with pytest.raises(UserError, match=f"k must be a whole number of at least 1, got {k!r}"):
        get_estimator("pkpo").advantages([[0, 1, 1]], k)


def test_guard_rails_on_the_number_of_samples():
    rewards = [[0, 1, 0, 1]]
    with pytest.raises(UserError, match="k = 5 exceeds the 4 samples .* draw at least 5"):
        get_estimator("pkpo-loo1").advantages(rewards, 5)
    with pytest.raises(UserError, match="k = 5 exceeds the 4 samples .* draw at least 6"):
        get_estimator("centred-l2o").advantages(rewards, 5)
    for name in ("centred-l2o", "pkpo-loo", "passk-training"):
        with pytest.raises(UserError, match=rf"{name} .*needs n >= k \+ 1 = 5 samples"):
            get_estimator(name).advantages(rewards, 4)
    for name in ("tang-loo", "reinforce-max", "verl-passk", "tang-centred"):
        with pytest.raises(UserError, match="pass@n from n samples, got n = 4 and k = 2"):
            get_estimator(name).advantages(rewards, 2)
    for name in ("grpo", "rloo", "maxrl"):
        with pytest.raises(UserError, match=f"{name} does not depend on k"):
            get_estimator(name).advantages(rewards, 2)
    with pytest.raises(UserError, match="pkpo needs k"):
        get_estimator("pkpo").advantages(rewards)
    with pytest.raises(UserError, match="k is empty: name at least one k"):
        get_estimator("pkpo").advantages(rewards, [])
    with pytest.raises(UserError, match="rloo needs at least 2 samples a prompt, got 1"):
        get_estimator("rloo").advantages([[1]])


def test_no_order_means_the_fixed_one():
    rewards = [[0, 1, 0, 1]]
    tang = get_estimator("tang-loo")
    assert torch.equal(tang.advantages(rewards), tang.advantages(rewards, 4))
    rloo = get_estimator("rloo")
    assert torch.equal(rloo.advantages(rewards), rloo.advantages(rewards, 1))


@pytest.mark.parametrize("name", [name for name, one in ESTIMATORS.items() if one.centred])
def test_centred_means_that_the_sum_is_zero(name):
    one = get_estimator(name)
    rewards = torch.randint(0, 2, (50, 7), generator=torch.Generator().manual_seed(0)).double()
    ks = {"k": [1, 2, 6], "n": [7], "none": [1]}[one.takes]
    sums = one.advantages(rewards, ks).sum(dim=2)
    assert sums.abs().max() < 1e-14
    if not one.binary_only:
        graded = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert one.advantages(graded, ks).sum(dim=2).abs().max() < 1e-13


def test_the_others_are_not_centred():
    rewards = torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1]])
    for name in ("pkpo", "pkpo-loo", "pkpo-loo1", "tang-loo", "plug-in", "maxrl-full"):
        one = get_estimator(name)
        k = {"k": 2, "n": 4, "none": 1}[one.takes]
        assert not one.centred
        assert one.advantages(rewards, k).sum(dim=1).abs().max() > 1e-3, name  # by some group


def test_every_class_says_what_the_table_needs():
    for one in ESTIMATORS.values():
        text = " ".join(type(one).__doc__.split())
        for word in ("Source", "ariance", "scends", "ias factor", "(P, n)"):
            assert word in text or (word == "scends" and "ffective weight" in text), (
                one.name,
                word,
            )
