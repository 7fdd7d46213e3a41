"""Along the share of hard prompts the conflict is a quadratic: at most two changes of sign.

Without separation and slope the whole boundary is known: the conflict holds between sigmoid(b (k -
1)) and one half.
"""

import pytest
import torch

from passgrad.interference import conflict
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.dynamics.phase import phase_diagram

pytestmark = pytest.mark.statement("prop-phase-quadratic", "prop-between")


@pytest.mark.parametrize("seed", range(4))
def test_three_values_determine_all_others(seed):
    """A quadratic through h = 0.2, 0.5 and 0.8 passes through every other value."""
    generator = torch.Generator().manual_seed(seed)
    bias, slope, separation = (2 * torch.randn(3, generator=generator)).tolist()

    def at(h, k):
        world = GaussianBandit(separation, h)
        return float(conflict(world, (bias, slope), [k]).inner_product[0])

    for k in (2, 7.5, 40):
        places = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        values = torch.tensor([at(float(h), k) for h in places], dtype=torch.float64)
        coefficients = torch.linalg.solve(torch.vander(places), values)
        for h in (0.05, 0.35, 0.95):
            point = torch.tensor([h**2, h, 1.0], dtype=torch.float64)
            assert float(point @ coefficients) == pytest.approx(at(h, k), abs=1e-13)


def test_a_straight_line_would_not_do():
    values = [
        float(conflict(GaussianBandit(0.2, h), (-2.0, -2.0), [5]).inner_product[0])
        for h in (0.2, 0.5, 0.8)
    ]
    assert abs(values[0] - 2 * values[1] + values[2]) > 1e-4


@pytest.mark.parametrize("bias", [-2.0, -0.3, 1.0])
@pytest.mark.parametrize("k", [2, 5, 30])
def test_without_separation_the_conflict_lies_between_the_optima(bias, k):
    diagram = phase_diagram([k], separations=[0.0], hard_fractions=[0.5], biases=[bias], slope=0.0)
    ends = sorted([torch.sigmoid(torch.tensor(bias * (k - 1), dtype=torch.float64)).item(), 0.5])
    assert diagram.boundaries[0, 0, 0].tolist() == pytest.approx(ends, abs=1e-10)
    inside = (0.3 * ends[0] + 0.7 * ends[1], True)
    outside = [(0.5 * ends[0], False), (0.5 + 0.5 * ends[1], False)]
    for h, conflicts in (inside, *outside):
        if 1e-9 < h < 1 - 1e-9:
            world = GaussianBandit(0.0, h)
            product = conflict(world, (bias, 0.0), [k]).inner_product[0]
            assert bool(product < 0) == conflicts
