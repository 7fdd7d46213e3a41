"""The printed measurement: its arithmetic, its bias by enumeration, and the way from it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.measurement import estimate_conflict
from passgrad.measurement.samples import ScoreSamples
from passgrad_book.experiments.mathematics.as_printed import (
    RIGHT_ONLY,
    Step,
    ablation,
    as_samples,
    counts_for,
    estimate,
    exact,
    kept_prompts,
    replicate,
    sign_shares,
    steps,
    weight,
)
from passgrad_book.experiments.mathematics.class_scores import PromptVectors

N, K = 3, 3
P = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


@pytest.fixture(scope="module")
def vectors():
    rows = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kernel = rows @ rows.T
    places, wrong = torch.arange(3), torch.arange(3, 6)
    names = {step.reading for step in steps()}
    return PromptVectors(
        dict.fromkeys(names, kernel),
        {"printed": places, "policy": places},
        {"printed": wrong, "policy": wrong},
    )


def every_count(n, p):
    """All counts of three prompts with their probabilities."""
    counts = torch.tensor(list(itertools.product(range(n + 1), repeat=len(p))))
    law = torch.distributions.Binomial(n, p).log_prob(counts.double()).sum(-1).exp()
    return counts, law


def test_the_printed_weights():
    found = weight(torch.tensor([1, 2, 3]), 32, 32)
    assert [round(float(w), 2) for w in found] == [11.96, 4.33, 1.51]
    # The printed ratio of hard to easy weights: 28 of 32 right answers, without the factor k.
    assert float(weight(torch.tensor([28]), 32, 32)) / 32 == pytest.approx((1 / 8) ** 31)
    assert 1e-29 < (1 / 8) ** 31 < 1.1e-28
    assert float(weight(torch.tensor([32]), 32, 32)) == 0


def test_the_filter_takes_both_ends_and_no_unsolved_prompt():
    c = torch.tensor([0, 1, 3, 4, 20, 27, 28, 32])
    printed = steps((0.85, 0.10))[0]
    assert kept_prompts(c, 32, printed).tolist() == [0, 1, 1, 0, 0, 0, 1, 1]
    wider = replace(printed, band=(0.85, 0.15))  # one more count is hard
    assert kept_prompts(c, 32, wider).tolist() == [0, 1, 1, 1, 0, 0, 1, 1]
    assert kept_prompts(c, 32, replace(printed, band=None, unsolved=True)).all()


def test_the_printed_sum_is_n_times_the_mean(vectors):
    c = torch.tensor([1, 2, 3])
    by_name = {step.name: step for step in steps((0.85, 0.40))}
    total = estimate(vectors, by_name["all parameters"], [c], N, K)
    mean = estimate(vectors, by_name["mean, not sum"], [c], N, K)
    assert int(total.kept) == 2  # 2 of 3 lies between the thresholds
    assert float(total.inner) == pytest.approx(2 * float(mean.inner), rel=1e-12)
    assert float(total.cosine) == pytest.approx(float(mean.cosine), rel=1e-12)
    # By hand: the sum of w(x) a(x), a(x) the product of g(x) with the mean of the kept.
    kernel = vectors.kernels["all parameters"]
    rate, w = c.double() / N, weight(c, N, K)
    kept = [0, 2]
    byhand = sum(
        float(w[x] * rate[x] * rate[y] * kernel[x, y]) / len(kept) for x in kept for y in kept
    )
    assert float(total.inner) == pytest.approx(byhand, rel=1e-12)


def test_unsolved_prompts_change_the_size_alone(vectors):
    by_name = {step.name: step for step in steps()}
    c = torch.tensor([0, 2, 3])
    without = estimate(vectors, by_name["no filter"], [c], N, K)
    back = estimate(vectors, by_name["c = 0 back"], [c], N, K)
    assert float(back.inner) == pytest.approx(float(without.inner) * (2 / 3) ** 2, rel=1e-12)
    assert float(back.cosine) == pytest.approx(float(without.cosine), rel=1e-12)


def test_the_exact_product(vectors):
    inner, cosine = exact(vectors, "all parameters", P, [1, K])
    kernel = vectors.kernels["all parameters"][:3, :3]
    gradients = P[:, None] * torch.linalg.cholesky(kernel + 1e-12 * torch.eye(3))
    g1 = gradients.mean(0)
    gk = (K * (1 - P)[:, None] ** (K - 1) * gradients).mean(0)
    assert float(inner[1]) == pytest.approx(float(g1 @ gk), rel=1e-8)
    assert float(cosine[0]) == pytest.approx(1)
    assert float(cosine[1]) == pytest.approx(float(g1 @ gk / g1.norm() / gk.norm()), rel=1e-8)


def test_the_printed_estimate_is_biased_and_the_cross_fit_is_not(vectors):
    """By enumeration of all answers: of the printed weights on all prompts of the policy's answers,
    and of the unbiased weights in two halves.
    """
    by_name = {step.name: step for step in steps()}
    truth = float(exact(vectors, "all parameters", P, [K])[0][0])
    counts, law = every_count(N, P)
    printed = float(law @ estimate(vectors, by_name["T = 1"], [counts], N, K).inner)
    same = float(law @ estimate(vectors, by_name["unbiased weights"], [counts], N, K).inner)
    one = counts.repeat_interleave(len(counts), 0)
    other = counts.repeat(len(counts), 1)
    both = torch.outer(law, law).flatten()
    halves = estimate(vectors, by_name["cross-fitted"], [one, other], N, K).inner
    assert float(both @ halves) == pytest.approx(truth, rel=1e-10)
    assert abs(printed - truth) > 0.1 * abs(truth)
    # The bias of the same answers in both gradients: the sum over prompts of the covariance.
    c = torch.arange(N + 1).double()
    plus = torch.tensor([0.0, 1.0, 0.0, 0.0]).double()  # k = n: the only right answer counts
    kernel = vectors.kernels["all parameters"]
    bias = 0.0
    for x, p in enumerate(P):
        b = torch.distributions.Binomial(N, p).log_prob(c).exp()
        g1, gk = c / N, c * plus
        covariance = float(b @ (g1 * gk)) - float(b @ g1) * float(b @ gk)
        bias += covariance * float(kernel[x, x]) / 9
    assert same - truth == pytest.approx(bias, rel=1e-10)


def test_replications_follow_the_enumeration(vectors, replications):
    number = replications(20_000)
    step = {one.name: one for one in steps()}["T = 1"]
    counts, law = every_count(N, P)
    values = estimate(vectors, step, [counts], N, K).inner
    mean = float(law @ values)
    error = float((law @ (values - mean).square()).sqrt())
    drawn = replicate(vectors, step, P, N, K, replications=number, seed=1).inner
    assert abs(float(drawn.mean()) - mean) < 4 * error / number**0.5
    # A filter applied to the same answers: the law of the estimate is that of the enumeration.
    filtered = replace(step, band=(0.5, 0.4))
    values = estimate(vectors, filtered, [counts], N, K).inner
    mean = float(law @ values)
    error = float((law @ (values - mean).square()).sqrt())
    drawn = replicate(vectors, filtered, P, N, K, replications=number, seed=2).inner
    assert abs(float(drawn.mean()) - mean) < 4 * error / number**0.5


def test_the_last_step_is_the_estimate_of_the_package(vectors):
    generator = torch.Generator().manual_seed(0)
    rewards = (torch.rand(3, 2 * N, generator=generator) < P[:, None]).double()
    samples = as_samples(vectors, rewards)
    found = estimate_conflict(samples, [1, K], estimator=RIGHT_ONLY, prompts="fixed", seed=4)
    from passgrad.measurement.crossfit import split_halves

    halves = split_halves(3, 2 * N, "completions", seed=4)
    counts = [half.take(rewards).sum(1) for half in halves]
    mine = estimate(vectors, steps()[-1], counts, N, K)
    assert float(mine.inner) == pytest.approx(found.inner_product[1], rel=1e-9)
    # The same from written scores: coordinates in which products are those of the kernel.
    values, basis = torch.linalg.eigh(vectors.kernels["all parameters"])
    coordinates = (basis * values.clamp(min=0).sqrt())[vectors.right["policy"]]
    written = ScoreSamples(rewards, rewards[..., None] * coordinates[:, None], samples.masses)
    other = estimate_conflict(written, [1, K], estimator=RIGHT_ONLY, prompts="fixed", seed=4)
    for name in ("inner_product", "standard_error", "squared_norm", "band_low", "cosine"):
        np.testing.assert_allclose(getattr(found, name), getattr(other, name), rtol=1e-9)


def test_centred_steps_use_the_wrong_answers(vectors):
    step = {one.name: one for one in steps()}["centred"]
    c = torch.tensor([1, 2, 2])
    found = estimate(vectors, step, [c], N, K)
    kernel = vectors.kernels["all parameters"]
    w = weight(c, N, K)
    share = (c * (N - c)).double() / (N * (N - 1))
    difference = torch.cat([torch.diag(share), -torch.diag(share)], dim=1)
    b1 = difference.sum(0)
    bk = (w[:, None] * difference).sum(0)
    assert float(found.inner) == pytest.approx(float(bk @ kernel @ b1) / 9, rel=1e-12)


def test_right_answers_alone_are_unbiased_at_every_order():
    p = torch.tensor([0.1, 0.5, 0.9]).double()
    for k in (1, 2, 5):
        target = k * (1 - p) ** (k - 1)
        assert torch.allclose(RIGHT_ONLY.effective_weight(p, 6, k), target, rtol=1e-10)


def test_what_does_not_fit(vectors):
    c = torch.tensor([1, 2, 3])
    corrected = steps()[-1]
    with pytest.raises(UserError, match="takes 2 sets of counts"):
        estimate(vectors, corrected, [c], N, K)
    none = {name: torch.full((3,), -1) for name in ("printed", "policy")}
    bare = PromptVectors(vectors.kernels, vectors.right, none)
    with pytest.raises(UserError, match="needs the wrong answers of prompt 0"):
        estimate(bare, {s.name: s for s in steps()}["centred"], [c], N, K)
    with pytest.raises(UserError, match="no vector of its right answer"):
        exact(PromptVectors(vectors.kernels, none, none), "all parameters", P, [1])
    with pytest.raises(UserError, match="solved has no vector"):
        as_samples(PromptVectors(vectors.kernels, none, none), torch.ones(3, 4))
    assert Step("x").reading == "all parameters"
    nothing = estimate(vectors, steps()[3], [torch.zeros(3).long()], N, K)
    assert float(nothing.inner) == 0


def test_the_whole_way_as_a_table(vectors):
    generator = torch.Generator().manual_seed(1)
    rewards = {
        law: (torch.rand(3, size, generator=generator) < P[:, None]).double()
        for law, size in (("printed", N), ("policy", 2 * N))
    }
    table = ablation(vectors, rewards, N, K, band=(0.5, 0.4), replications=50)
    assert table["step"].tolist() == [step.name for step in steps()]
    by_hand = estimate(vectors, steps()[-1], counts_for(steps()[-1], rewards, N), N, K)
    assert table["product"].iloc[-1] == pytest.approx(float(by_hand.inner))
    none = {name: torch.full((3,), -1) for name in ("printed", "policy")}
    bare = PromptVectors(vectors.kernels, vectors.right, none)
    fewer = ablation(bare, rewards, N, K, band=(0.5, 0.4), replications=50)
    assert not fewer["step"].str.startswith("centred").all()
    assert (fewer["product"].to_numpy()[-1] == table["product"].to_numpy()[-1]).all()


def test_shares_of_signs_follow_the_enumeration(vectors, replications):
    number = replications(4000)
    rates = {"printed": P, "policy": P}
    table = sign_shares(vectors, rates, N, K, replications=number).set_index("step")
    assert np.allclose(table[["right", "wrong", "none"]].sum(axis=1), 1)
    step = {one.name: one for one in steps()}["T = 1"]
    counts, law = every_count(N, P)
    truth = exact(vectors, "all parameters", P, [K])[0][0]
    right = float(law @ (estimate(vectors, step, [counts], N, K).inner * truth > 0).double())
    assert table.loc["T = 1", "right"] == pytest.approx(right, abs=4 * 0.5 / number**0.5)
