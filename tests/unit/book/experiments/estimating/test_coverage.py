"""Intervals hold the truth about as often as they say; shorter ones would not."""

import pytest

from passgrad.errors import UserError
from passgrad.worlds.bandit import GaussianBandit, TwoPointBandit
from passgrad_book.experiments.estimating.coverage import simulate_conflict_coverage

THETA = (-1.0, 0.0)
POPULATION = GaussianBandit(0.2, 0.2)
KS = (1, 2, 4)


def covered(frame):
    """The shares at each k and of the band; that of the threshold is no less than the band's."""
    shares = frame.set_index("target")["coverage"]
    assert shares["threshold"] >= shares["band"]
    return shares.drop("threshold")


@pytest.mark.parametrize("split", ["prompts", "completions"])
def test_coverage_for_new_prompts(split):
    frame = simulate_conflict_coverage(
        POPULATION, THETA, 24, KS, num_prompts=150, split=split, replications=500, draws=2000
    )
    assert covered(frame).between(0.92, 0.98).all()
    single = frame[frame["target"].str.startswith("k")]
    assert single["error_ratio"].between(0.9, 1.15).all()
    # The mean of 500 estimates is within four of its standard errors.
    assert (abs(single["mean"] - single["truth"]) < 4 * single["spread"] / 500**0.5).all()


def test_coverage_for_fixed_prompts():
    world = POPULATION.sample(64, 16, seed=7)
    frame = simulate_conflict_coverage(
        world, THETA, 16, KS, prompts="fixed", replications=500, draws=2000
    )
    assert covered(frame).between(0.92, 0.98).all()


def test_the_level_is_heeded():
    world = POPULATION.sample(64, 16, seed=7)
    frame = simulate_conflict_coverage(
        world, THETA, 16, KS, prompts="fixed", replications=500, draws=2000, level=0.6
    )
    assert covered(frame).between(0.52, 0.72).all()


def test_refusals():
    with pytest.raises(UserError, match="num_prompts is needed"):
        simulate_conflict_coverage(TwoPointBandit(), THETA, 16, KS)
    with pytest.raises(UserError, match="num_prompts is needed"):
        simulate_conflict_coverage(TwoPointBandit(), THETA, 16, KS, num_prompts=9, prompts="fixed")
