import math

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict, crossings, sign_changes
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad.worlds.base import AnalyticWorld

THETA = (-2.0, -2.0)


@pytest.fixture(scope="module")
def curve():
    return conflict(GaussianBandit(), THETA, ks=[1, 2, 10])


class Given(AnalyticWorld):
    """Success rates and a jacobian as they are given."""

    num_parameters = 2

    def __init__(self, p, jacobian):
        self.p = torch.tensor(p, dtype=torch.float64)
        self.jacobian = torch.tensor(jacobian, dtype=torch.float64)
        self.masses = torch.full_like(self.p, 1 / len(p))
        self.groups = tuple(f"prompt {i}" for i in range(len(p)))

    def success_and_jacobian(self, theta=None):
        return self.p, self.jacobian

    def own_parameters(self):
        return torch.zeros(2, dtype=torch.float64)


def test_shapes_and_order(curve):
    world = GaussianBandit()
    assert curve.ks.tolist() == [1, 2, 10]
    for over_k in (curve.inner_product, curve.cosine, curve.norm):
        assert over_k.shape == (3,)
        assert over_k.dtype == torch.float64
    assert curve.agreement.shape == curve.success.shape == (world.num_prompts,)
    assert curve.weights.shape == (3, world.num_prompts)
    assert curve.groups == world.groups


def test_each_k_belongs_to_its_gradient(curve):
    world = GaussianBandit()
    _, one = world.objective_gradient(THETA, PassAtK(1))
    for i, k in enumerate([1, 2, 10]):
        _, g = world.objective_gradient(THETA, PassAtK(k))
        assert float(curve.norm[i]) == pytest.approx(float(g.norm()), rel=1e-12)
        assert float(curve.inner_product[i]) == pytest.approx(float(g @ one), rel=1e-10)
        cosine = float(g @ one / (g.norm() * one.norm()))
        assert float(curve.cosine[i]) == pytest.approx(cosine, rel=1e-10)


def test_pass_at_1_agrees_with_itself(curve):
    assert float(curve.cosine[0]) == pytest.approx(1, abs=1e-12)
    assert float(curve.inner_product[0]) == pytest.approx(curve.norm_at_1**2, rel=1e-12)


@pytest.mark.parametrize("ks", [(1, 10), [1, 10], np.array([1, 10]), torch.tensor([1, 10])])
def test_ks_of_every_kind(ks):
    assert conflict(TwoPointBandit(), THETA, ks).ks.tolist() == [1, 10]


@pytest.mark.parametrize(
    ("ks", "message"),
    [
        ([], "ks is empty"),
        ([2, 0.5], "at least 1, got 0.5"),
        ([math.nan], "at least 1, got nan"),
        (10, "ks must be a sequence"),
        ("10", "ks must be a sequence"),
        (["10"], "k must be a number, got '10'"),
    ],
)
def test_bad_ks_are_refused(ks, message):
    with pytest.raises(UserError, match=message):
        conflict(TwoPointBandit(), THETA, ks)


def test_a_world_without_parameters_wants_theta():
    with pytest.raises(UserError, match="TwoPointBandit has no parameters of its own: pass theta"):
        conflict(TwoPointBandit())


def test_the_first_of_several_thresholds_is_returned():
    # E[w_k a] / k is a sum of exponentials in k, here with two changes of sign: + - +.
    p, a = [0.9, 0.5, 0.0], [3.0, -2.0, 0.01]
    g = 1.0  # grad J_1 = (1, 0) * sum(a) / 3
    curve = conflict(Given(p, [[x * g, 0.0] for x in a]), ks=[1, 3, 100])
    assert (curve.inner_product.sign() == torch.tensor([1.0, -1.0, 1.0])).all()
    threshold = curve.threshold
    assert 1 < threshold < 3
    assert curve.inner_product_at(threshold) == pytest.approx(0, abs=1e-12)
    assert curve.inner_product_at(threshold - 1e-9) > 0 > curve.inner_product_at(threshold + 1e-9)


def test_a_threshold_in_the_ten_thousands_is_found_where_all_weights_underflow():
    # The weights are of the order 0.1^k: zero in float64 from k = 400 on, their ratio is not.
    p = [0.9, 0.9 - 1e-5]
    curve = conflict(Given(p, [[3.0, 0.0], [-1.0, 0.0]]))
    # 3 (1 - p_0)^(k - 1) = (1 - p_1)^(k - 1)
    expected = 1 + math.log(3) / math.log((1 - p[1]) / (1 - p[0]))
    assert expected > 10_000
    assert curve.inner_product_at(expected + 1) == 0
    assert curve.threshold == pytest.approx(expected, rel=1e-9)


def test_crossings_are_all_changes_of_sign():
    curve = conflict(Given([0.9, 0.5, 0.0], [[3.0, 0.0], [-2.0, 0.0], [0.01, 0.0]]))
    first, second = crossings(curve).tolist()
    assert first == curve.threshold
    for k in (first, second):
        assert curve.inner_product_at(k) == pytest.approx(0, abs=1e-13)
    assert curve.inner_product_at(second - 1e-6) < 0 < curve.inner_product_at(second + 1e-6)
    assert sign_changes(curve) == sign_changes(curve, cumulated=True) == 2
    assert crossings(curve, up_to=(first + second) / 2).tolist() == [first]
    assert crossings(curve, up_to=1).tolist() == []


def test_two_thresholds_close_together_are_both_found():
    # (x - r)(x - r (1 - 1e-4)) in x = (1 - p)^(k - 1), with rates 0, 1, 2: both within 0.01 %.
    root, near = math.exp(-0.5), math.exp(-0.50005)
    p = [0.0, 1 - math.exp(-1), 1 - math.exp(-2)]
    curve = conflict(Given(p, [[root * near, 0.0], [-(root + near), 0.0], [1.0, 0.0]]))
    found = crossings(curve)
    torch.testing.assert_close(
        found, torch.tensor([1.5, 1.50005], dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_sign_changes_merge_prompts_of_equal_success():
    # Prompts of one success rate weigh alike: -1 and +3 of them count as +2.
    curve = conflict(Given([0.2, 0.2, 0.7], [[-1.0, 0.0], [3.0, 0.0], [1.0, 0.0]]))
    assert sign_changes(curve) == 0
    # The hardest prompts agree, and a little disagreement after them never outweighs them.
    mild = conflict(Given([0.1, 0.5, 0.9], [[2.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]))
    assert (sign_changes(mild), sign_changes(mild, cumulated=True)) == (2, 0)
    assert len(crossings(mild, up_to=math.inf)) == 0


def test_beyond_the_default_range_crossings_are_found_on_request():
    curve = conflict(Given([1e-8, 2e-8], [[-1.0, 0.0], [2.0, 0.0]]))
    assert len(crossings(curve)) == 0
    assert math.isnan(curve.threshold)
    expected = 1 + math.log(2) / (math.log1p(-1e-8) - math.log1p(-2e-8))
    assert crossings(curve, up_to=math.inf).tolist() == [pytest.approx(expected, rel=1e-12)]


def test_a_solved_prompt_counts_at_k_1_only():
    curve = conflict(Given([1.0, 0.5], [[3.0, 0.0], [-1.0, 0.0]]), ks=[1, 1.001])
    assert (curve.inner_product.sign() == torch.tensor([1.0, -1.0])).all()
    assert crossings(curve).tolist() == [1.0]
    assert curve.threshold == 1


@pytest.mark.parametrize("bad", [0.5, -1.0, math.nan])
def test_crossings_below_1_are_refused(bad):
    curve = conflict(TwoPointBandit(), THETA)
    with pytest.raises(UserError, match="up_to must be at least 1"):
        crossings(curve, up_to=bad)


def test_no_threshold_without_a_change_of_sign():
    assert math.isnan(conflict(Given([0.9, 0.1], [[1.0, 0.0], [1.0, 0.0]])).threshold)
    assert math.isnan(conflict(Given([1.0, 1.0], [[0.0, 0.0], [0.0, 0.0]])).threshold)


def test_solved_and_hopeless_prompts_are_no_trouble():
    curve = conflict(Given([1.0, 0.0, 0.5], [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]), ks=[1, 7])
    assert torch.isfinite(curve.cosine).all()
    assert curve.weights[0].tolist() == [1, 1, 1]
    assert curve.weights[1].tolist() == pytest.approx([0, 7, 7 * 0.5**6])
    assert math.isnan(curve.threshold)
    assert torch.isfinite(curve.reweighted(1)).all()


def test_the_cosine_of_a_zero_gradient_is_not_a_number():
    curve = conflict(Given([1.0, 0.5], [[0.0, 0.0], [0.0, 0.0]]), ks=[2])
    assert math.isnan(float(curve.cosine[0]))


def test_the_reweighted_law_survives_underflow():
    curve = conflict(Given([0.9, 0.8], [[1.0, 0.0], [1.0, 0.0]]), ks=[2000])
    assert (curve.weights == 0).all()
    assert curve.reweighted(2000).tolist() == [pytest.approx(0, abs=1e-300), pytest.approx(1)]


@pytest.mark.parametrize("num_prompts", [2, 3, 49, 1000])
def test_the_correlation_form_is_undefined_where_nothing_varies(num_prompts):
    rates = torch.linspace(0.1, 0.8, num_prompts, dtype=torch.float64)
    jacobian = torch.stack([rates, 1 - rates], dim=1)
    # no sum of masses that rounding may move: 1/49 added up 49 times is not 1
    weights_alike = conflict(Given(rates.tolist(), jacobian.tolist()), ks=[1, 2])
    agreements_alike = conflict(Given(rates.tolist(), [[0.1, 0.7]] * num_prompts), ks=[2])
    underflown = conflict(Given(rates.tolist(), jacobian.tolist()), ks=[1e6])
    for curve, defined in (
        (weights_alike, [False, True]), (agreements_alike, [False]), (underflown, [False])
    ):  # fmt: skip
        for part in curve.correlation_form():
            assert part.isfinite().tolist() == defined
            assert part.isnan().tolist() == [not one for one in defined]


def test_the_correlation_form_survives_weights_whose_squares_underflow():
    rates = [0.9, 0.8, 0.7]
    curve = conflict(Given(rates, [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), ks=[400])
    assert curve.weights.max() > 0
    assert curve.weights.square().max() == 0
    rho, limit = curve.correlation_form()
    # all of the weight is on the last prompt
    assert float(rho[0]) == pytest.approx(
        float(np.corrcoef([0.0, 0.0, 1.0], curve.agreement.numpy())[0, 1]), rel=1e-6
    )
    sign = torch.sign(curve.inner_product)
    assert torch.sign(rho - limit).tolist() == sign.tolist()


def test_the_correlation_form_says_where_the_gradients_conflict(curve):
    rho, limit = curve.correlation_form()
    assert (rho[1:].abs() <= 1).all()
    assert (limit[1:] < 0).all()
    assert ((rho < limit) == (curve.inner_product < 0)).all()


def test_frames(curve):
    per_k = curve.to_frame()
    assert per_k["k"].tolist() == [1, 2, 10]
    assert per_k["cosine"].tolist() == curve.cosine.tolist()
    expected = float(curve.masses @ PassAtK(10).value(curve.success))
    assert per_k["pass_at_k"][2] == pytest.approx(expected)
    per_prompt = curve.prompts_frame()
    assert len(per_prompt) == len(curve.success)
    assert per_prompt["weight_10"].tolist() == curve.weights[2].tolist()
    assert set(per_prompt["group"]) == {"easy", "hard"}
    assert per_prompt["mass"].sum() == pytest.approx(1)
