"""Two levels of success: the spread at which the gradients of pass@1 and pass@k conflict."""

import math

import pytest
import torch

from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("prop-spread-threshold")


def holds(a_easy, a_hard, p_easy, p_hard, k):
    """The condition of the statement."""
    if a_hard >= 0:
        return False
    gap = math.log((1 - p_hard) / (1 - p_easy))
    return (k - 1) * gap > math.log(a_easy / -a_hard)


def test_in_a_world_of_two_prompts(case):
    ks = [1.5, 2, 3, 5, 10, 30]
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        theta = 2 * torch.randn(2, generator=generator, dtype=torch.float64)
        found = conflict(TwoPointBandit(0.2 + seed % 5), theta, ks)
        hard, easy = found.success.argsort().tolist()
        sums = found.masses * found.agreement
        for k, inner in zip(ks, found.inner_product.tolist(), strict=True):
            said = holds(
                float(sums[easy]), float(sums[hard]),
                float(found.success[easy]), float(found.success[hard]), k,
            )  # fmt: skip
            with case(seed=seed, k=k):
                assert said == (inner < 0)


def test_both_outcomes_occur_and_the_paper_s_point_has_its_threshold():
    world = TwoPointBandit(0.2)
    found = conflict(world, [-2.0, -2.0], [1, 2])
    assert found.inner_product[0] > 0 > found.inner_product[1]
    hard, easy = found.success.argsort().tolist()
    sums = found.masses * found.agreement
    gap = torch.log((1 - found.success[hard]) / (1 - found.success[easy]))
    k = 1 + float((sums[easy] / -sums[hard]).log() / gap)
    assert k == pytest.approx(found.threshold, rel=1e-9)
    assert k == pytest.approx(1.236, abs=1e-3)


def test_several_prompts_of_each_kind(case):
    """Sums of signs that differ within a kind: only their totals count."""
    for k in [2, 7]:
        with case(k=k):
            generator = torch.Generator().manual_seed(k)
            outcomes = set()
            for _ in range(200):
                p_hard, p_easy = sorted(torch.rand(2, generator=generator).double().tolist())
                a = torch.randn(6, generator=generator).double()
                mass = torch.full((6,), 1 / 6).double()
                easy, hard = float((mass * a)[:3].sum()), float((mass * a)[3:].sum())
                if easy + hard <= 0:
                    continue
                p = torch.tensor([p_easy] * 3 + [p_hard] * 3).double()
                inner = float((mass * PassAtK(k).weight(p) * a).sum())
                outcomes.add(inner < 0)
                assert holds(easy, hard, p_easy, p_hard, k) == (inner < 0)
            assert outcomes == {True, False}
