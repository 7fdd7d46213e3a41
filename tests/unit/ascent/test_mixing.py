import math

import numpy as np
import pytest
import torch

from passgrad import UserError
from passgrad.ascent.mixing import (
    AGGREGATORS,
    RunningGram,
    coefficients,
    first_order_changes,
    nearest_psd,
)

FREE = ("pcgrad", "mgda", "upgrad", "imtlg", "gradvac", "alignedmtl", "sum", "constrained",
        "cagrad", "nashmtl", "dualproj")  # fmt: skip


def gram(first, inner, second):
    return torch.tensor([[first, inner], [inner, second]], dtype=torch.float64)


CONFLICT = gram(1.0, -0.5, 2.0)
THREE = torch.tensor([[1.0, -0.5, 0.1], [-0.5, 2.0, -0.3], [0.1, -0.3, 1.0]], dtype=torch.float64)


def test_pcgrad_projects_each_on_the_other():
    lambdas = coefficients(CONFLICT, "pcgrad", normalise=False)
    assert lambdas.tolist() == pytest.approx([1 + 0.5 / 1.0, 1 + 0.5 / 2.0])
    assert coefficients(gram(1.0, 0.5, 2.0), "pcgrad", normalise=False).tolist() == [1, 1]


def test_mgda_is_the_shortest_mean():
    lambdas = coefficients(CONFLICT, "mgda")
    best = min(
        (float(torch.tensor([a, 1 - a]).double() @ CONFLICT @ torch.tensor([a, 1 - a]).double()), a)
        for a in torch.linspace(0, 1, 1001).tolist()
    )
    assert float(lambdas[0]) == pytest.approx(best[1], abs=2e-3)


def test_upgrad_of_two_is_half_of_pcgrad():
    for one in (CONFLICT, gram(3.0, -1.0, 0.5), gram(1.0, 0.2, 1.0)):
        both = [coefficients(one, name, normalise=False) for name in ("upgrad", "pcgrad")]
        torch.testing.assert_close(2 * both[0], both[1])


def test_upgrad_agrees_with_its_solver():
    pytest.importorskip("quadprog")
    from torchjd.aggregation import UPGradWeighting
    from torchjd.linalg import QuadprogProjector

    # Its default adds 1e-4 to the diagonal.
    exact = UPGradWeighting(projector=QuadprogProjector(reg_eps=0.0))
    torch.testing.assert_close(
        exact(CONFLICT), coefficients(CONFLICT, "upgrad", normalise=False), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize(
    "name", ["pcgrad", "mgda", "upgrad", "constrained", "alignedmtl", "dualproj", "nashmtl"]
)
@pytest.mark.parametrize("inner", [-0.9, -0.3, 0.0, 0.4])
def test_no_objective_falls(name, inner):
    one = gram(1.0, inner, 0.9)
    lambdas = coefficients(one, name)
    assert float(lambdas.abs().sum()) == pytest.approx(1)
    assert (first_order_changes(one, lambdas) >= -1e-9).all()


def test_constrained_is_the_best_that_keeps_the_first():
    lambdas = coefficients(CONFLICT, "constrained", normalise=False)
    assert lambdas.tolist() == pytest.approx([0.5, 1.0])
    changes = first_order_changes(CONFLICT, lambdas)
    assert changes[0] == pytest.approx(0, abs=1e-12)
    length = (lambdas @ CONFLICT @ lambdas).sqrt()
    # Every other combination of that length lowers one or raises two less.
    for angle in torch.linspace(0, 2 * math.pi, 721).double():
        other = torch.stack([angle.cos(), angle.sin()])
        other = other * length / (other @ CONFLICT @ other).sqrt()
        change = first_order_changes(CONFLICT, other)
        assert change[0] < -1e-9 or change[1] <= changes[1] + 1e-9
    assert coefficients(gram(1.0, 0.1, 2.0), "constrained").tolist() == [0, 1]


def test_constrained_with_a_margin():
    error = gram(0.1, 0.2, 0.1)
    lambdas = coefficients(CONFLICT, "constrained", error=error, quantile=2.0, normalise=False)
    assert lambdas.tolist() == pytest.approx([(0.5 + 0.4) / (1 - 0.2), 1.0])
    unknown = coefficients(CONFLICT, "constrained", error=gram(0.6, 0.1, 0.1), quantile=2.0)
    assert unknown.tolist() == [1, 0]
    nothing = torch.full((2, 2), math.inf)
    assert coefficients(CONFLICT, "constrained", error=nothing).tolist() == [1, 0]
    assert coefficients(CONFLICT, "pcgrad", error=nothing).tolist() == [0.5, 0.5]


def test_noise_is_not_divided_by():
    tiny = gram(1.0, -0.05, 1e-6)
    wild = coefficients(tiny, "pcgrad", normalise=False)
    held = coefficients(tiny, "pcgrad", error=gram(0.2, 0.1, 0.2), normalise=False)
    assert wild[1] > 20
    assert held.tolist() == pytest.approx([1.05, 1.25])


def test_nearest_psd():
    one = gram(1.0, 2.0, 1.0)
    projected = nearest_psd(one)
    assert torch.linalg.eigvalsh(projected).min() >= -1e-12
    torch.testing.assert_close(projected, torch.full((2, 2), 1.5).double())
    torch.testing.assert_close(nearest_psd(CONFLICT), CONFLICT)


@pytest.mark.parametrize("name", FREE)
def test_a_matrix_of_zeros_and_the_generator(name):
    before = torch.get_rng_state()
    if name != "constrained":
        assert coefficients(torch.zeros(2, 2), name).tolist() == [0.5, 0.5]
    coefficients(CONFLICT, name)
    assert torch.equal(before, torch.get_rng_state())
    # The scale of the gradients does not matter.
    torch.testing.assert_close(
        coefficients(CONFLICT * 1e-9, name), coefficients(CONFLICT * 1e6, name), atol=1e-6, rtol=0
    )


def test_missing_extras_are_named():
    import importlib.util

    cases = {
        "cagrad": ("cvxpy", r"torchjd\[cagrad\]"),
        "nashmtl": ("cvxpy", r"torchjd\[nash_mtl\]"),
        "dualproj": ("quadprog", r"torchjd\[quadprog_projector\]"),
    }
    for name, (package, extra) in cases.items():
        if importlib.util.find_spec(package) is None:
            with pytest.raises(UserError, match=extra):
                coefficients(THREE, name)
        else:
            assert coefficients(THREE, name).isfinite().all()
        # Two objectives need no solver.
        assert coefficients(CONFLICT, name).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((CONFLICT, "best"), "known: pcgrad"),
        ((torch.ones(2, 3), "pcgrad"), "is square"),
        ((gram(math.nan, 0.0, 1.0), "pcgrad"), "not finite"),
        ((torch.eye(3), "constrained"), "takes two objectives"),
    ],
)
def test_wrong_arguments(arguments, match):
    with pytest.raises(UserError, match=match):
        coefficients(*arguments)
    assert "constrained" in AGGREGATORS


def test_running_mean_and_its_error():
    generator = torch.Generator().manual_seed(0)
    running = RunningGram(half_life=1e9)
    assert running.error.isinf().all()
    draws = torch.randn(50, 2, 2, dtype=torch.float64, generator=generator)
    for one in draws:
        running.update(one)
    torch.testing.assert_close(running.mean, draws.mean(0))
    torch.testing.assert_close(running.error, draws.std(0) / 50**0.5)
    assert running.effective == pytest.approx(50)


def test_running_error_with_forgetting():
    """The standard error is right on average: over many runs its square is the variance."""
    generator = torch.Generator().manual_seed(1)
    means, squares = [], []
    for _ in range(2000):
        running = RunningGram(size=1, half_life=3)
        for one in torch.randn(12, 1, 1, dtype=torch.float64, generator=generator):
            running.update(one)
        means.append(float(running.mean))
        squares.append(float(running.error.square()))
    variance = torch.tensor(means).var().item()
    assert torch.tensor(squares).mean().item() == pytest.approx(variance, rel=0.06)


def test_running_state():
    running = RunningGram()
    for value in (1.0, 2.0, 4.0):
        running.update(gram(value, -value, 2 * value))
    other = RunningGram()
    other.load_state_dict(running.state_dict())
    for one in (running, other):
        one.update(CONFLICT)
    assert torch.equal(running.mean, other.mean)
    assert torch.equal(running.error, other.error)
    assert running.quantile(0.9) == other.quantile(0.9)
    assert RunningGram().quantile(0.9) == math.inf
    for wrong in (0.2, 1.0):
        with pytest.raises(UserError, match="confidence"):
            running.quantile(wrong)
    with pytest.raises(UserError, match="half_life"):
        RunningGram(half_life=0)


def gram_of(g, noise, generator):
    """An unbiased estimate of the products of two vectors: one noisy pair against another."""
    one, other = (
        g + noise * torch.randn(g.shape, dtype=g.dtype, generator=generator) for _ in "ab"
    )
    products = one @ other.T
    return (products + products.T) / 2


@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_a_cosine_of_means_is_one_or_is_not_said(noise):
    generator = torch.Generator().manual_seed(0)
    g = torch.tensor([[1.0, 0, 0], [-0.6, 0.8, 0]], dtype=torch.float64)
    said = []
    for _ in range(20):
        running = RunningGram()
        assert math.isnan(running.cosine())
        for _ in range(12):
            running.update(gram_of(g, noise, generator))
            value = running.cosine()
            assert math.isnan(value) or -1 <= value <= 1
        said.append(value)
    known = [value for value in said if not math.isnan(value)]
    assert len(known) == 20 if noise == 0.1 else len(known) < 20
    if noise == 0.1:
        assert np.mean(known) == pytest.approx(-0.6, abs=0.1)


@pytest.mark.parametrize("keep", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("product", [-2.0, -0.3, 0.0, 0.2, 5.0])
def test_constrained_keeps_the_share_of_the_first_gain_that_is_asked_for(product, keep):
    gram = torch.tensor([[1.5, product], [product, 30.0]], dtype=torch.float64)
    lambdas = coefficients(gram, "constrained", keep=keep, normalise=False)
    gain = float(first_order_changes(gram, lambdas)[0])
    assert lambdas[1] == 1
    # the least that keeps it: the bound is met exactly unless pass@k alone does better
    assert gain == pytest.approx(max(keep * 1.5, product))


def test_a_share_to_keep_takes_bounds_not_estimates():
    gram = torch.tensor([[1.0, 0.4], [0.4, 1.0]])
    error = torch.full((2, 2), 0.1)
    lambdas = coefficients(gram, "constrained", error=error, quantile=2, keep=0.5, normalise=False)
    assert float(lambdas[0]) == pytest.approx(0.5 - 0.2 / 1.2)
    with pytest.raises(UserError, match="keep must be"):
        coefficients(gram, "constrained", keep=-0.1)
