"""Two families, each of one success rate: when they conflict, and from which k on."""

import math

import pytest
import torch

from passgrad.interference import Conflict, crossings
from passgrad.objectives import PassAtK

pytestmark = pytest.mark.statement("prop-two-families")

KS = torch.tensor([1.0, 1.5, 2.0, 4.0, 8.0, 32.0], dtype=torch.float64)
SIZES = (3, 2)


def draw(seed):
    """Gradients of five prompts, two rates, a share, and the conflict that they make."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    gradients = normal(5, 6)
    # Half of the draws have families that pull against each other.
    gradients[:3] += 1.5 * normal(6)
    gradients[3:] -= 0.7 * (seed % 2) * gradients[:3].mean(0)
    p_hard, p_easy = torch.rand(2, dtype=torch.float64, generator=generator).sort().values.tolist()
    h = 0.1 + 0.8 * float(torch.rand((), generator=generator))
    success = torch.tensor([p_easy] * 3 + [p_hard] * 2, dtype=torch.float64)
    law = torch.softmax(normal(3), 0), torch.softmax(normal(2), 0)
    masses = torch.cat([(1 - h) * law[0], h * law[1]])
    weights = torch.stack([PassAtK(float(k)).weight(success) for k in KS])
    at_1, at_k = masses @ gradients, (masses * weights) @ gradients
    curve = Conflict(
        KS, at_k @ at_1, at_k.norm(dim=1), float(at_1.norm()), success, gradients @ at_1, weights,
        masses, ("easy",) * 3 + ("hard",) * 2,
    )  # fmt: skip
    means = law[0] @ gradients[:3], law[1] @ gradients[3:]
    return curve, means, h


DRAWS = [draw(seed) for seed in range(200)]


def test_the_draws_have_both_kinds():
    negative = [float(m[1] @ ((1 - h) * m[0] + h * m[1])) < 0 for _, m, h in DRAWS]
    assert 40 < sum(negative) < 160


def test_when_and_from_where_they_conflict(case):
    for seed, (curve, (easy, hard), h) in enumerate(DRAWS):
        with case(seed=seed):
            check_threshold(curve, easy, hard, h)


def check_threshold(curve, easy, hard, h):
    p_easy, p_hard = float(curve.success[0]), float(curve.success[-1])
    a_easy, a_hard = (
        float(curve.masses[part] @ curve.agreement[part] / share)
        for part, share in ((slice(3), 1 - h), (slice(3, 5), h))
    )
    across, within = float(easy @ hard), float(hard @ hard)
    assert a_hard == pytest.approx((1 - h) * across + h * within, abs=1e-12)
    assert (a_hard < 0) == (across < 0 and h / (1 - h) < -across / within)
    found = crossings(curve, up_to=math.inf)
    if a_hard >= 0:
        assert len(found) == 0
        assert (curve.inner_product >= curve.weights[:, 0] * curve.norm_at_1**2 - 1e-12).all()
        return
    ratio = 1 + curve.norm_at_1**2 / (h * -a_hard)
    assert ratio == pytest.approx((1 - h) * a_easy / (h * -a_hard), rel=1e-9)
    threshold = 1 + math.log(ratio) / math.log((1 - p_hard) / (1 - p_easy))
    assert found.tolist() == pytest.approx([threshold], rel=1e-9)
    assert ((curve.inner_product < 0) == (curve.ks > threshold)).all()


def test_for_large_k_only_the_hard_family_is_left(case):
    """The cosine tends to that of the gradients of the hard family and of pass@1."""
    for seed, (curve, (easy, hard), h) in enumerate(DRAWS):
        rates = torch.log1p(-curve.success)
        law = curve.reweighted(1 + 40 / float(rates[-1] - rates[0]))
        step = law[:3].sum() * easy + law[3:].sum() * hard
        at_1 = (1 - h) * easy + h * hard
        cosine = float(torch.cosine_similarity(step, at_1, dim=0))
        limit = float(torch.cosine_similarity(hard, at_1, dim=0))
        with case(seed=seed):
            assert cosine == pytest.approx(limit, abs=1e-12)
            assert float(law @ curve.agreement) == pytest.approx(float(hard @ at_1), abs=1e-12)
