import math

import pytest
import torch

from passgrad.ascent.mixing import AGGREGATORS, coefficients
from passgrad.ascent.pairs import CLOSED, conflict_averse, dual_projection, nash


def gram(first, inner, second):
    return torch.tensor([[first, inner], [inner, second]], dtype=torch.float64)


GRAMS = [gram(1.0, c * math.sqrt(s), s) for c in (-0.9, -0.3, 0.0, 0.6) for s in (0.2, 1.0, 9.0)]


def vectors(one):
    """Two vectors of the plane with this Gram matrix, as rows."""
    return torch.linalg.cholesky(one)


def plane(length, angles=20001):
    turn = torch.linspace(0, 2 * math.pi, angles, dtype=torch.float64)
    return length * torch.stack([turn.cos(), turn.sin()], dim=1)


@pytest.mark.parametrize("one", GRAMS)
def test_dual_projection_is_the_nearest_point_of_the_cone(one):
    rows = vectors(one)
    mean, step = rows.mean(0), dual_projection(one) @ rows
    assert (rows @ step >= -1e-12).all()
    # Every point of a fine grid of the cone is farther from the mean.
    grid = torch.cat([plane(r, 721) for r in torch.linspace(0, 4, 81).tolist()])
    inside = grid[(grid @ rows.T >= 0).all(1)]
    assert (step - mean).norm() <= (inside - mean).norm(dim=1).min() + 1e-12


@pytest.mark.parametrize("one", GRAMS)
def test_nash_solves_its_equations(one):
    made = nash(one)
    torch.testing.assert_close(one @ made, 1 / made)
    rows = vectors(one)
    step = made @ rows
    # It is the bisector: the same angle with both.
    angles = rows @ step / rows.norm(dim=1)
    torch.testing.assert_close(angles[0], angles[1])


@pytest.mark.parametrize("radius", [0.3, 0.5, 1.5])
@pytest.mark.parametrize("one", GRAMS)
def test_cagrad_has_the_best_worst_change_in_its_ball(one, radius):
    rows = vectors(one)
    mean = rows.mean(0)
    step = conflict_averse(one, radius) @ rows
    assert float((step - mean).norm()) <= radius * float(mean.norm()) + 1e-9
    ball = mean + plane(radius * float(mean.norm()))
    worst = (ball @ rows.T).min(dim=1).values.max()
    assert float((rows @ step).min()) >= float(worst) - 1e-8


def test_cagrad_at_radius_zero_is_the_mean_and_between_opposites_nothing():
    torch.testing.assert_close(conflict_averse(GRAMS[0], 0.0), torch.full((2,), 0.5).double())
    assert conflict_averse(gram(1.0, -1.0, 1.0)).tolist() == [0, 0]
    # The ball does not reach zero, and then it does.
    assert conflict_averse(gram(1.0, -2.0, 4.0), 0.5).tolist() == pytest.approx([0.75, 0.5])
    assert conflict_averse(gram(1.0, -2.0, 4.0), 1.5).tolist() == [0, 0]


def test_the_names_are_those_of_the_aggregators():
    assert set(CLOSED) <= set(AGGREGATORS)
    for name, closed in CLOSED.items():
        one = gram(1.0, -0.4, 0.5)
        torch.testing.assert_close(coefficients(one, name, normalise=False), closed(one))


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.parametrize("one", [gram(1.0, -0.4, 0.5), gram(0.3, -0.2, 0.25), gram(1.0, 0.5, 2.0)])
@pytest.mark.parametrize(
    ("name", "package", "digits"),
    [("dualproj", "quadprog", 9), ("nashmtl", "ecos", 3), ("cagrad", "clarabel", 4)],
)
def test_they_agree_with_the_solvers(name, package, digits, one):
    # torchjd's Nash-MTL stops at its start, (1, 1), where G (1, 1) has a zero: no such case here.
    pytest.importorskip(package)
    from torchjd import aggregation
    from torchjd.linalg import QuadprogProjector

    made = {
        "dualproj": lambda: aggregation.DualProjWeighting(projector=QuadprogProjector(reg_eps=0.0))(
            one
        ),
        "nashmtl": lambda: aggregation.NashMTL(n_tasks=2, max_norm=0.0).weighting(vectors(one)),
        "cagrad": lambda: aggregation.CAGradWeighting(c=0.5)(one),
    }[name]().double()
    torch.testing.assert_close(
        made / made.sum(), coefficients(one, name), atol=10.0**-digits, rtol=0
    )
