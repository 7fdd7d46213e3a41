import math
from dataclasses import replace

import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.dynamics.phase import phase_diagram

KS = [1, 1.5, 2, 7, 64]
SEPARATIONS = [0.0, 0.2, 3.0]
FRACTIONS = [0.02, 0.4, 0.9]
BIASES = [-3.0, 0.5]


@pytest.fixture(scope="module")
def diagram():
    return phase_diagram(
        KS, separations=SEPARATIONS, hard_fractions=FRACTIONS, biases=BIASES, slope=-1.5
    )


def test_it_equals_the_conflict_of_every_population(diagram):
    for b, bias in enumerate(BIASES):
        for s, separation in enumerate(SEPARATIONS):
            for f, fraction in enumerate(FRACTIONS):
                world = GaussianBandit(separation, fraction)
                curve = conflict(world, (bias, -1.5), KS)
                here = diagram.inner_product[b, s, f], diagram.cosine[b, s, f]
                for got, expected in zip(here, (curve.inner_product, curve.cosine), strict=True):
                    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
                levels = [float(curve.masses @ (1 - (1 - curve.success) ** k)) for k in KS]
                assert diagram.pass_at_k[b, s, f].tolist() == pytest.approx(levels, abs=1e-12)
                assert float(diagram.norm_at_1[b, s, f]) == pytest.approx(
                    curve.norm_at_1, abs=1e-12
                )


def test_the_whole_grid_of_a_chapter_at_random_places():
    ks = list(range(1, 65))
    separations = torch.linspace(0, 4, 64)
    fractions = torch.linspace(0.01, 0.99, 64)
    big = phase_diagram(ks, separations=separations, hard_fractions=fractions)
    assert big.inner_product.shape == (1, 64, 64, 64)
    generator = torch.Generator().manual_seed(0)
    for s, f in torch.randint(64, (12, 2), generator=generator).tolist():
        world = GaussianBandit(float(separations[s]), float(fractions[f]))
        curve = conflict(world, (-2.0, -2.0), ks)
        torch.testing.assert_close(
            big.inner_product[0, s, f], curve.inner_product, atol=1e-12, rtol=0
        )


def test_pieces_make_no_difference(monkeypatch, diagram):
    monkeypatch.setattr("passgrad_book.experiments.dynamics.phase._CHUNK", 1)
    again = phase_diagram(
        KS, separations=SEPARATIONS, hard_fractions=FRACTIONS, biases=BIASES, slope=-1.5
    )
    torch.testing.assert_close(again.inner_product, diagram.inner_product, atol=1e-15, rtol=0)


def test_the_quadratic_gives_the_inner_product(diagram):
    h = diagram.hard_fractions[:, None]
    c0, c1, c2 = diagram.quadratic[:, :, None].unbind(-1)
    value = c0 * (1 - h) ** 2 + c1 * h * (1 - h) + c2 * h**2
    torch.testing.assert_close(value, diagram.inner_product, atol=1e-14, rtol=0)


def test_the_boundaries_are_where_the_sign_changes():
    diagram = phase_diagram([5, 10, 64], separations=[0.2], hard_fractions=[0.5])
    for k, roots in zip([5, 10, 64], diagram.boundaries[0, 0], strict=True):
        low, high = roots.tolist()
        assert 0 < low < high < 1
        for h, sign in ((low - 1e-6, 1), (low + 1e-6, -1), (high - 1e-6, -1), (high + 1e-6, 1)):
            curve = conflict(GaussianBandit(0.2, h), (-2.0, -2.0), [k])
            assert math.copysign(1, curve.inner_product[0]) == sign


def test_a_small_root_keeps_its_digits(diagram):
    quadratic = torch.tensor([[[[1e-18, -1.0, 1.0], [1.0, 2.0, 1.0], [-1.0, 0.0, 4.0]]]])
    roots = replace(diagram, quadratic=quadratic.double()).boundaries[0, 0]
    assert roots[0].tolist() == pytest.approx([1e-18, 0.5], rel=1e-12)
    assert roots[1].isnan().all()
    assert roots[2, 0].item() == pytest.approx(1 / 3)
    assert roots[2, 1].isnan()


def test_no_boundary_where_there_is_no_conflict():
    diagram = phase_diagram([1, 5], separations=[3.0], hard_fractions=[0.1, 0.5, 0.9])
    assert (diagram.inner_product > 0).all()
    assert diagram.boundaries.isnan().all()


def test_the_frame_is_long(diagram):
    frame = diagram.to_frame()
    assert len(frame) == 2 * 3 * 3 * 5
    row = frame.query("bias == 0.5 and separation == 0.2 and hard_fraction == 0.9 and k == 7")
    assert row["cosine"].item() == pytest.approx(float(diagram.cosine[1, 1, 2, 3]))
    assert row["pass_at_k"].item() == pytest.approx(float(diagram.pass_at_k[1, 1, 2, 3]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ks": []}, "ks must be a list of finite numbers"),
        ({"ks": [0.5]}, "at least 1, got 0.5"),
        ({"separations": [math.nan]}, "separations must be a list of finite numbers"),
        ({"biases": []}, "biases must be"),
        ({"slope": math.inf}, "slope must be"),
        ({"hard_fractions": [0.0]}, "strictly between 0 and 1"),
        ({"hard_fractions": [1.0]}, "strictly between 0 and 1"),
        ({"num_nodes": 2}, "num_nodes must be at least 3"),
    ],
)
def test_what_is_refused(arguments, message):
    whole = {"ks": [2], "separations": [0.2], "hard_fractions": [0.4], **arguments}
    with pytest.raises(UserError, match=message):
        phase_diagram(whole.pop("ks"), **whole)
