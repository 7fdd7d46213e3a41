"""Conflict from products of single prompts; the products within prompts of a language model."""

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.interference import conflict
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement import OwnProducts, ScoreSamples, estimate_conflict, sample_bandit
from passgrad.measurement.crossfit import order_advantages
from passgrad.measurement.kernel import StoredProducts, conflict_of_halves, conflict_of_kernel
from passgrad.measurement.planning_models import bandit_model
from passgrad.worlds.bandit import TwoPointBandit

PROMPTS = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7], [9, 8, 7]]
DRAWN = [
    [[5, 6], [7], [5, 6], [8, 9, 3, 2]],
    [[5, 6], [8], [5, 6], [9, 1]],
    [[1], [2, 2], [3, 3, 3], [2, 2]],
]
REWARDS = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 0]]).double()
LOO = get_estimator("pkpo-loo1")
KS = (1, 2, 4)


@pytest.fixture(scope="module")
def case(tiny_model):
    model = tiny_model()
    passes = CompletionPasses(model, Completions.from_tokens(PROMPTS, DRAWN), REWARDS)
    scores = []
    for x in range(3):
        for i in range(4):
            one = torch.zeros(3, 4)
            one[x, i] = 1
            scores.append(passes.gradient(one))
    return passes, ScoreSamples(REWARDS, torch.stack(scores).view(3, 4, -1), passes.masses)


def test_products_within_prompts_are_those_of_the_scores(case, tmp_path, shown):
    passes, scores = case
    shown.stage("products", 2)
    stored = StoredProducts(passes, tmp_path, shown)
    assert isinstance(stored, OwnProducts)
    c = order_advantages(REWARDS, (1, 2, 3), LOO)
    where = torch.ones(3, 4, dtype=torch.bool)
    where[0, 1] = where[2, :2] = False
    expected = scores.own(c, where)
    torch.testing.assert_close(stored.own(c, where), expected, atol=1e-9, rtol=1e-9)
    assert (stored.own(c, where)[:, ~where] == 0).all()


def test_a_prompt_that_is_done_is_not_done_again(case, tmp_path, monkeypatch):
    passes, _ = case
    stored = StoredProducts(passes, tmp_path)
    c, where = order_advantages(REWARDS, (1, 2, 3), LOO), torch.ones(3, 4, dtype=torch.bool)
    whole, calls = passes.gradient, []

    def gradient(coefficients):
        calls.append(coefficients)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(coefficients)

    monkeypatch.setattr(passes, "gradient", gradient)
    with pytest.raises(KeyboardInterrupt):
        stored.own(c, where)
    after = stored.own(c, where)
    assert len(calls) <= 2 * 3 + 2  # two vectors a prompt for three orders; one prompt begun twice
    count = len(calls)
    assert torch.equal(stored.own(c, where), after)
    assert len(calls) == count


def test_new_prompts_with_halves_of_completions_work_on_a_language_model(case, tmp_path):
    passes, scores = case
    options = {"prompts": "new", "split": "completions", "seed": 3}
    found = estimate_conflict(StoredProducts(passes, tmp_path), [1, 2], **options)
    expected = estimate_conflict(scores, [1, 2], **options)
    np.testing.assert_allclose(found.inner_product, expected.inner_product, rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, rtol=1e-6)


def bandit_kernels(num_prompts, n, replications, seed=0):
    world, theta = TwoPointBandit(0.2, 0.5), (-1.5, -1.0)
    samples = sample_bandit(
        world, theta, n, num_prompts=num_prompts, replications=replications, seed=seed
    )
    u = torch.einsum("krxi,rxid->rkxd", order_advantages(samples.rewards, KS, LOO), samples.scores)
    kernels = torch.einsum("rkxd,rlyd->rklxy", u, u)
    return world, theta, kernels


def test_all_pairs_of_prompts_are_unbiased_with_an_error_that_holds():
    world, theta, kernels = bandit_kernels(24, 8, 600)
    found = [conflict_of_kernel(kernel, KS) for kernel in kernels]
    values = np.array([one.inner_product for one in found])
    exact = conflict(world, theta, KS)
    spread = values.std(0)
    assert (abs(values.mean(0) - exact.inner_product.numpy()) < 4 * spread / 600**0.5).all()
    said = np.mean([one.standard_error**2 for one in found], axis=0)
    # Pairs that differ in both prompts: a jackknife has their part twice.
    tau = bandit_model(world, theta, KS).at(8).second / 24**2
    np.testing.assert_allclose(np.sqrt(said - tau), spread, rtol=0.1)
    norms = np.array([one.squared_norm for one in found])
    error = norms.std(0) / 600**0.5
    assert (abs(norms.mean(0) - exact.norm.square().numpy()) < 4 * error).all()


def test_the_second_order_part_is_that_of_the_world():
    world, theta, kernels = bandit_kernels(24, 8, 600)
    tau = np.array([conflict_of_kernel(kernel, KS).second_order for kernel in kernels])
    expected = bandit_model(world, theta, KS).at(8).second
    assert (abs(tau.mean(0) - expected) < 4 * tau.std(0) / 600**0.5 + 0.03 * expected).all()


def test_halves_leave_the_terms_of_one_prompt_in_or_out(case):
    _, scores = case
    c = order_advantages(REWARDS, (1, 2), LOO)
    u = torch.einsum("kxi,xid->kxd", torch.cat([c, 2 * c]), scores.scores)
    kernel = torch.einsum("kxd,lyd->klxy", u, u)
    g = torch.einsum("x,kxd->kd", scores.masses, u[:2])
    fixed = conflict_of_halves(kernel, scores.masses, fixed=True)
    torch.testing.assert_close(fixed, 2 * g @ g[0])
    new = conflict_of_halves(kernel, scores.masses, fixed=False)
    found = conflict_of_kernel(kernel[:2, :2], [1, 2])
    torch.testing.assert_close(new, 2 * torch.as_tensor(found.inner_product))


def test_clear_errors():
    with pytest.raises(UserError, match="1 among them, and at least 3 prompts"):
        conflict_of_kernel(torch.zeros(2, 2, 5, 5), [2, 4])
    with pytest.raises(UserError, match="one row and column for each k"):
        conflict_of_kernel(torch.zeros(1, 1, 5, 5), [1, 4])
