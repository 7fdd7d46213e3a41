"""Mean and variance of every estimator against the sum over all outcomes of n samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.estimators import (
    ESTIMATORS,
    GRPO,
    PassKTraining,
    PKPOLooMinusOne,
    PlugIn,
    VerlPassK,
    advantages,
    get_estimator,
)
from passgrad.objectives import ArcsinSqrt, Log, PassAtK
from passgrad_book.experiments.checks import estimators as checks
from passgrad_book.experiments.checks.estimators import Enumerated

pytestmark = pytest.mark.statement("prop-exchangeable", "prop-gradient-variance")

# Four actions, of which the first two are right: scores differ within either class.
LOGITS = torch.tensor([0.3, -1.1, 0.5, 0.05], dtype=torch.float64)
RIGHT = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)


def enumerated(n, right=RIGHT):
    return Enumerated(n, LOGITS.softmax(dim=0), right)


def settings_of(name, largest=5):
    """The (n, k) for which an estimator is defined, n up to ``largest``."""
    one = get_estimator(name)
    for n in range(max(1, one.fewest), largest + 1):
        ks = {"k": range(1, n - one.spare + 1), "n": [n], "none": [1]}[one.takes]
        yield from ((n, k) for k in ks)


CASES = {name: [(name, n, k) for n, k in settings_of(name)] for name in ESTIMATORS}
CASES["with options"] = [
    (GRPO(epsilon=0.1, correction=0), 4, 1),
    (PassKTraining(epsilon=0), 5, 2),
    (PassKTraining(epsilon=0.2), 4, 3),
    (VerlPassK(standardise=False), 4, 4),
    (VerlPassK(epsilon=0.3), 3, 3),
]
SPACES = {n: enumerated(n) for n in range(1, 6)}


def check_bias(estimator, n, k):
    """The enumerated mean is what the estimator states, and what its coefficients imply."""
    space, one = SPACES[n], get_estimator(estimator)
    mean = space.mean(advantages(space.rewards, k, estimator=estimator))
    p = torch.tensor(space.p, dtype=torch.float64)
    stated = one.bias_factor(space.p, n, k) * PassAtK(k).weight(p) * space.gradient
    torch.testing.assert_close(mean, stated, atol=1e-12, rtol=0)
    implied = one.effective_weight(space.p, n, k) * space.gradient
    torch.testing.assert_close(mean, implied, atol=1e-12, rtol=0)
    if one.unbiased:
        target = space.gradient * k * (1 - space.p) ** (k - 1)
        torch.testing.assert_close(mean, target, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_the_stated_one(name, case):
    for estimator, n, k in CASES[name]:
        with case(estimator=estimator, n=n, k=k):
            check_bias(estimator, n, k)


@pytest.mark.parametrize("name", CASES)
def test_the_variance_is_that_of_the_formula(name, case):
    for estimator, n, k in CASES[name]:
        space, one = SPACES[n], get_estimator(estimator)
        exact = space.variance(advantages(space.rewards, k, estimator=estimator))
        formula = float(one.variance(space.p, n, k, **space.class_moments()))
        with case(estimator=estimator, n=n, k=k):
            assert formula == pytest.approx(exact, abs=1e-12, rel=1e-11)


def test_a_wrongly_stated_bias_fails():
    class Wrong(PlugIn):
        def bias_factor(self, p, n, k=None):
            return torch.ones((), dtype=torch.float64)

    class Nearly(PKPOLooMinusOne):
        unbiased = False

        def bias_factor(self, p, n, k=None):
            return torch.tensor((n - k + 1) / n + 1e-9, dtype=torch.float64)

    with pytest.raises(AssertionError):
        check_bias(Wrong(), 5, 3)
    with pytest.raises(AssertionError):
        check_bias(Nearly(), 5, 1)


def test_with_three_actions_too_four_estimators_are_unbiased():
    found = checks.unbiased()
    assert found["error"] < 1e-12
    assert found["cases"] >= 50


def test_dependent_coefficients_of_any_kind_only_scale_the_gradient():
    """The statement itself: A_+ and A_- at random, nothing but a scale comes of it."""
    generator = torch.Generator().manual_seed(3)
    for n in range(1, 6):
        space = SPACES[n]
        plus, minus = torch.randn(2, n + 1, dtype=torch.float64, generator=generator)
        c = space.rewards.sum(dim=1).long()
        made = torch.where(space.rewards == 1, plus[c][:, None], minus[c][:, None])
        steps = plus[1:] - minus[:-1]
        law = [math.comb(n - 1, j) * space.p**j * (1 - space.p) ** (n - 1 - j) for j in range(n)]
        scale = n * float(torch.tensor(law, dtype=torch.float64) @ steps)
        torch.testing.assert_close(space.mean(made), scale * space.gradient, atol=1e-12, rtol=0)


def test_with_graded_rewards_the_gradient_of_one_prompt_can_turn():
    """The statement is about binary rewards: max@k of three values has a direction of its own."""
    space = enumerated(5, right=torch.tensor([0.9, 1.0, 0.7, 0.0], dtype=torch.float64))
    mean = space.mean(advantages(space.rewards, 5, estimator="tang-loo"))
    cosine = float(mean @ space.gradient / (mean.norm() * space.gradient.norm()))
    assert cosine < 0.9


@settings(deadline=None, max_examples=60)  # the machine may be busy
@given(
    name=st.sampled_from(sorted(ESTIMATORS)),
    n=st.integers(2, 40),
    share=st.floats(0, 1),
    p=st.floats(0.01, 0.99),
)
def test_bernoulli_score_for_many_n_k_and_p(name, n, share, p):
    """With the score of a Bernoulli policy, outcomes fall into the counts: n may be large."""
    one = get_estimator(name)
    k = {"k": 1 + round(share * (n - one.spare - 1)), "n": n, "none": 1}[one.takes]
    c = np.arange(n + 1)
    rewards = (np.arange(n)[None, :] < c[:, None]).astype(float)
    made = advantages(rewards, k, estimator=name).numpy()
    score = np.where(rewards == 1, 1 - p, -p)  # grad log pi in the logit: grad p = p (1 - p)
    estimate = (made * score).sum(axis=1)
    law = np.array([math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in c])
    scale = k * max(1, abs(float(one.effective_weight(p, n, k))))
    mean = law @ estimate
    assert mean == pytest.approx(
        float(one.effective_weight(p, n, k)) * p * (1 - p), abs=1e-12 * scale
    )
    weight = k * (1 - p) ** (k - 1)
    stated = float(one.bias_factor(p, n, k)) * weight * p * (1 - p)
    assert mean == pytest.approx(stated, abs=1e-12 * scale)
    spread = law @ (estimate - mean) ** 2
    formula = float(one.variance(p, n, k, mean_square=(1 - p) ** 2))
    assert formula == pytest.approx(spread, rel=1e-9, abs=1e-13 * scale)


def test_reference_values_of_the_bias(case):
    for name, expected in [
        ("plug-in", {(4, 2): 0.75, (5, 3): 0.78, (6, 3): 0.82, (6, 4): 0.88}),
        ("plug-in-loo", {(4, 2): 1.00, (5, 3): 1.22, (6, 3): 1.18, (6, 4): 1.52}),
        ("plug-in-centred", {(4, 2): 0.97, (5, 3): 1.06, (6, 3): 1.06, (6, 4): 1.23}),
        ("tang-centred", {(2, 2): 0.94, (3, 3): 1.25, (4, 4): 1.41}),
    ]:
        with case(estimator=name):
            for (n, k), factor in expected.items():
                assert float(get_estimator(name).bias_factor(0.468, n, k)) == pytest.approx(
                    factor, abs=0.006
                )


def test_reference_values_of_the_relative_deviation(case):
    for p, quiet, noisy in [
        (0.02, (1.75, 1.64, 1.66, 1.65), None),
        (0.1, (0.81, 0.52, 0.56, 0.52), (1.88, 1.05, 1.07, 1.03)),
        (0.3, (0.97, 0.41, 0.20, 0.33), (2.91, 0.79, 0.76, 0.72)),
        (0.6, (6.8, 1.6, 0.73, 1.1), None),
        (0.9, (830, 59, 3.2, 6.7), (2899, 194, 10.7, 7.6)),
    ]:
        with case(p=p):
            names = ("pkpo", "pkpo-loo", "pkpo-loo1", "centred-l2o")
            for noise, expected in ((0.0, quiet), (1.0, noisy)):
                for name, value in zip(names, expected or (), strict=False):
                    got = get_estimator(name).relative_deviation(
                        p, 16, 4, mean_square=(1 - p) ** 2, noise_right=noise, noise_wrong=noise
                    )
                    assert float(got) == pytest.approx(value, rel=0.03)


def test_passk_training_tends_to_the_arcsine(case):
    for p, limit, at in [
        (0.02, 3.517, {16: 1.589, 64: 2.825}),
        (0.3, 0.803, {16: 0.656}),
        (0.9, 0.100, {16: 0.018}),
    ]:
        with case(p=p):
            one = PassKTraining(epsilon=0)
            for n, value in at.items():
                assert float(one.effective_weight(p, n, 4)) == pytest.approx(value, abs=6e-4)
            arcsine = float(ArcsinSqrt(4).weight(torch.tensor(p, dtype=torch.float64)))
            assert arcsine == pytest.approx(limit, abs=6e-4)
            gaps = [abs(float(one.effective_weight(p, n, 4)) - limit) for n in (64, 1024, 16384)]
            assert gaps == sorted(gaps, reverse=True)


def test_grpo_tends_to_the_arcsine_and_is_passk_training_at_k_1():
    p = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    for correction in (0, 1):
        weight = GRPO(epsilon=0, correction=correction).effective_weight(p, 4000)
        torch.testing.assert_close(weight, ArcsinSqrt().weight(p), rtol=2e-3, atol=0)
    torch.testing.assert_close(
        GRPO(epsilon=0, correction=0).effective_weight(p, 9),
        PassKTraining(epsilon=0).effective_weight(p, 9, 1),
    )


def test_maxrl_ascends_the_truncated_logarithm_and_the_zero_costs_one_order():
    p = torch.linspace(0, 1, 21, dtype=torch.float64)
    for n in (2, 5, 16):
        shipped = get_estimator("maxrl").effective_weight(p, n)
        torch.testing.assert_close(shipped, Log(order=n - 1).weight(p), rtol=1e-12, atol=1e-12)
        full = get_estimator("maxrl-full").effective_weight(p, n)
        torch.testing.assert_close(full, Log(order=n).weight(p), rtol=1e-12, atol=1e-12)


def test_the_effective_weight_is_the_slope_of_the_mean_payoff(case):
    n, step = 9, 1e-5
    p = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    for name in sorted(ESTIMATORS):
        one = get_estimator(name)
        k = {"k": 4, "n": n, "none": 1}[one.takes]
        slope = (one.objective(p + step, n, k) - one.objective(p - step, n, k)) / (2 * step)
        with case(estimator=name):
            torch.testing.assert_close(one.effective_weight(p, n, k), slope, rtol=1e-7, atol=1e-7)


def test_the_payoff_of_the_unbiased_family_is_the_share_of_groups_solved():
    for name in ("pkpo", "pkpo-loo", "pkpo-loo1", "centred-l2o"):
        payoff = get_estimator(name).payoff(7, 3)
        shares = [1 - math.comb(7 - c, 3) / math.comb(7, 3) for c in range(8)]
        torch.testing.assert_close(payoff, torch.tensor(shares, dtype=torch.float64))
