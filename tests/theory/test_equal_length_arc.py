"""The first-order changes of steps of one length: an arc, and nothing beats it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.ascent.directions import AdamMetric, Euclidean, FisherMetric
from passgrad.ascent.frontier import frontier
from passgrad.ascent.mixing import coefficients
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import TwoPointBandit

pytestmark = pytest.mark.statement("prop-equal-length", "cor-cagrad-mgda")

METHODS = ("pcgrad", "upgrad", "mgda", "cagrad", "dualproj", "nashmtl", "imtlg", "constrained")
vectors = st.lists(st.floats(-5, 5), min_size=6, max_size=6)


def pair(entries):
    return torch.tensor(entries, dtype=torch.float64).view(2, 3)


def angle(u, v):
    return math.acos(max(-1.0, min(1.0, float(u @ v / (u.norm() * v.norm())))))


def apart(rows):
    """Neither gradient vanishes and they are not on one line."""
    return rows.norm(dim=1).min() > 1e-2 and 1e-2 < angle(*rows) < math.pi - 1e-2


@settings(deadline=None)
@given(vectors, st.floats(0, 1))
def test_mixtures_lie_on_the_arc(entries, share):
    rows = pair(entries)
    if not apart(rows):
        return
    step = torch.tensor([1 - share, share], dtype=torch.float64) @ rows
    phi, psi = angle(step, rows[0]), angle(*rows)
    norms = rows.norm(dim=1)
    on_the_arc = torch.stack([norms[0] * math.cos(phi), norms[1] * math.cos(psi - phi)])
    torch.testing.assert_close(rows @ step / step.norm(), on_the_arc, atol=1e-6, rtol=0)
    assert phi <= psi + 1e-9


@settings(deadline=None)
@given(vectors, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_no_step_of_the_length_exceeds_it(entries, share, seed):
    rows = pair(entries)
    if not apart(rows):
        return
    step = torch.tensor([1 - share, share], dtype=torch.float64) @ rows
    there = rows @ step / step.norm()
    others = torch.randn(500, 3, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(seed))  # fmt: skip
    # Far ones, and ones close by.
    others = torch.cat([others, step / step.norm() + 1e-3 * others])
    changes = others / others.norm(dim=1, keepdim=True) @ rows.T
    assert not ((changes > there + 1e-12).all(dim=1)).any()


@settings(deadline=None, max_examples=25)
@given(vectors)
def test_the_angles_of_the_methods(entries):
    rows = pair(entries)
    if not apart(rows):
        return
    psi = angle(*rows)
    expected = {"nashmtl": psi / 2, "imtlg": psi / 2, "constrained": min(psi, math.pi / 2)}
    for name in METHODS:
        lambdas = coefficients(rows @ rows.T, name)
        assert (lambdas >= -1e-9).all()
        if name in expected:
            assert angle(lambdas @ rows, rows[0]) == pytest.approx(expected[name], abs=1e-4)


@pytest.mark.parametrize("metric", [Euclidean, lambda: FisherMetric(0.3), lambda: AdamMetric(0.9)])
def test_in_any_metric(metric):
    """From paths in a world: changes per length in M, against the arc of the Gram matrix in M."""
    world, theta = TwoPointBandit(), (-2.0, -2.0)
    length = 0.01
    shares = [f"mixture {share / 10:g}" for share in range(11)]
    path = frontier(
        world, theta, [*shares, *METHODS], k=10, steps=1, length=length, make_metric=metric
    )["path"].query("step == 0")
    first, norm_1, norm_k = (path[name].iloc[0] for name in ("cosine", "norm_1", "norm_k"))
    psi = math.acos(first)
    phi = (path["predicted_1"] / length / norm_1).map(math.acos)
    on_the_arc = norm_k * (psi - phi).map(math.cos)
    assert (path["predicted_k"] / length).tolist() == pytest.approx(on_the_arc.tolist(), rel=1e-6)
    assert phi.is_monotonic_increasing is False  # the methods stand between the mixtures
    assert phi.iloc[:11].is_monotonic_increasing
    assert phi.max() <= psi + 1e-6


def test_a_mixture_with_the_ratio_of_a_method_makes_its_step():
    world, theta = TwoPointBandit(), torch.tensor([-2.0, -2.0], dtype=torch.float64)
    rows = torch.stack([world.objective_gradient(theta, PassAtK(k))[1] for k in (1, 10)])
    for name in METHODS:
        lambdas = coefficients(rows @ rows.T, name)
        share = float(lambdas[1] / lambdas.sum())
        path = frontier(world, theta, [name, f"mixture {share!r}"], k=10, steps=1, length=0.3)
        ends = path["prompts"].pivot(index="prompt", columns="method", values="success_end")
        assert ends.iloc[:, 0].tolist() == pytest.approx(ends.iloc[:, 1].tolist(), abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(math.pi / 2 + 1e-3, math.pi - 0.05))
def test_mgda_and_an_inner_cagrad_raise_both_alike(first, second, psi):
    inner = first * second * math.cos(psi)
    gram = torch.tensor([[first**2, inner], [inner, second**2]], dtype=torch.float64)
    shortest = coefficients(gram, "mgda")
    changes = gram @ shortest
    scale = float(gram.diagonal().min())
    assert float(changes[0]) == pytest.approx(float(changes[1]), abs=1e-3 * scale)
    lambdas = coefficients(gram, "cagrad", normalise=False)
    # The excess over the mean, (1/2, 1/2), is along g_w: it is inner where both entries are there.
    inside = bool(((lambdas - 0.5) > 1e-6).all())
    changes = gram @ lambdas
    if inside:
        assert float(changes[0]) == pytest.approx(float(changes[1]), abs=1e-6 * scale)
    # Equal norms are always inside; a ball that is too small is not.
    if abs(first - second) < 1e-6:
        assert inside
    elif not inside:
        assert abs(float(changes[0] - changes[1])) > 1e-9
