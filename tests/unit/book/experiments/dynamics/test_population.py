import pytest
import torch

from passgrad.ascent.ascent import ascend
from passgrad.errors import UserError
from passgrad.objectives import PassAtK
from passgrad.worlds.bandit import GaussianBandit
from passgrad_book.experiments.dynamics.population import ascend_population


def test_every_member_goes_the_way_of_ascend():
    ks, fractions, separations = [1.0, 2.5, 8.0], [0.3, 0.6], [0.0, 2.0]
    trace = ascend_population(
        (-2.0, -1.0),
        torch.tensor(ks)[:, None, None],
        hard_fraction=torch.tensor(fractions, dtype=torch.float64)[:, None],
        separation=torch.tensor(separations),
        step_size=0.5,
        steps=40,
        ks=(1, 8),
    )
    assert trace.levels.shape == (41, 3, 2, 2, 2)
    for i, k in enumerate(ks):
        for j, h in enumerate(fractions):
            for m, d in enumerate(separations):
                alone = ascend(
                    GaussianBandit(d, h), (-2.0, -1.0), PassAtK(k), step_size=0.5, steps=40
                )
                for order in (1, 8):
                    torch.testing.assert_close(
                        trace.pass_at_k(order)[:, i, j, m],
                        alone.pass_at_k(order),
                        atol=1e-12,
                        rtol=0,
                    )
                torch.testing.assert_close(trace.theta[i, j, m], alone.theta, atol=1e-12, rtol=0)


def test_starts_and_steps_are_batched_too():
    starts = torch.tensor([[-2.0, -2.0], [1.0, 0.0]], dtype=torch.float64)
    trace = ascend_population(starts, 3, step_size=torch.tensor([0.1, 1.0]), steps=5)
    for i, eta in enumerate((0.1, 1.0)):
        alone = ascend(GaussianBandit(), starts[i], PassAtK(3), step_size=eta, steps=5)
        torch.testing.assert_close(trace.theta[i], alone.theta, atol=1e-7, rtol=0)


def test_steps_that_are_kept():
    every = ascend_population((-2.0, -2.0), 5, steps=7, ks=(5,))
    some = ascend_population((-2.0, -2.0), 5, steps=7, ks=(5,), every=3)
    assert some.steps.tolist() == [0, 3, 6, 7]
    assert torch.equal(some.pass_at_k(5), every.pass_at_k(5)[some.steps])
    assert torch.equal(some.theta, every.theta)


def test_no_step_at_all():
    trace = ascend_population((-2.0, -2.0), 5, steps=0)
    assert trace.theta.tolist() == [-2.0, -2.0]
    assert trace.levels.shape == (1, 1)


def test_few_nodes_are_enough():
    fine = ascend_population((-2.0, -2.0), 5, steps=50, ks=(1, 5))
    coarse = ascend_population((-2.0, -2.0), 5, steps=50, ks=(1, 5), num_nodes=65)
    torch.testing.assert_close(fine.levels, coarse.levels, atol=1e-11, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0.5}, "k must be at least 1, got 0.5"),
        ({"hard_fraction": 1.0}, "strictly between 0 and 1"),
        ({"theta": (1.0, 2.0, 3.0)}, "axis of length 2"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"every": 0}, "every at least 1"),
        ({"ks": (0,)}, "at least 1"),
    ],
)
def test_what_is_refused(arguments, message):
    whole = {"theta": (-2.0, -2.0), "k": 5, "steps": 1, **arguments}
    with pytest.raises(UserError, match=message):
        ascend_population(whole.pop("theta"), whole.pop("k"), **whole)


def test_a_level_that_was_not_recorded():
    with pytest.raises(UserError, match=r"pass@2 was not recorded, only k in \[1.0\]"):
        ascend_population((-2.0, -2.0), 5, steps=1).pass_at_k(2)
