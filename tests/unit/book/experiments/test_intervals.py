import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from passgrad.errors import UserError
from passgrad.stats.tally import tally
from passgrad_book.experiments.intervals import (
    SuccessLaw,
    _batch,
    percent_cells,
    simulate_change_coverage,
    simulate_coverage,
)

SPREAD = SuccessLaw("spread", ((1, 0.3, 0.6),))
CLUSTERS = SuccessLaw("two clusters", ((0.5, 1, 15), (0.5, 15, 1)))
SOLVED = SuccessLaw("mostly solved", ((1, 2, 0.3),))


def coverage(*arguments, **options):
    return simulate_coverage(*arguments, **options).set_index(["method", "k"])["coverage"]


def test_pass_at_k_of_a_law_is_its_mean():
    rates = CLUSTERS.sample(np.random.default_rng(0), (200_000,))
    for k in (1, 4, 16):
        assert CLUSTERS.pass_at_k(k) == pytest.approx((1 - (1 - rates) ** k).mean(), abs=0.004)
    assert SuccessLaw("flat", ((1, 1, 1),)).pass_at_k([1, 3]) == pytest.approx([1 / 2, 3 / 4])


def limits(number, low, high):
    """Between these a share of so many lies with P = .9998 where its mean is from low to high."""
    return binom.ppf([1e-4, 1 - 1e-4], number, [low, high]) / number


@pytest.mark.parametrize("prompts", ["new", "fixed"])
@pytest.mark.parametrize("law", [SPREAD, CLUSTERS], ids=lambda law: law.name)
def test_the_score_interval_and_the_band_cover(law, prompts, replications):
    number = replications(4000)
    found = simulate_coverage(
        law, 100, 32, [1, 8, 16, 24, 32], methods=("score", "band"), prompts=prompts,
        replications=number, draws=1000,
    )  # fmt: skip
    assert found["coverage"].between(*limits(number, 0.94, 0.96)).all(), found


def test_near_one_the_bootstrap_fails_and_the_score_interval_does_not():
    methods = ("score", "bootstrap", "normal")
    found = coverage(SOLVED, 50, 16, [12, 16], methods=methods, replications=500, num_resamples=200)
    assert (found["score"] > 0.92).all()
    assert (found[["bootstrap", "normal"]] < 0.4).all()


def test_its_shares_are_right_where_they_are_known(replications):
    # At k = n an estimate is a coin with P(1) = J_n: the coverage is a sum over binomial counts.
    found = simulate_coverage(
        SPREAD, 40, 8, [8], methods=("normal",), replications=replications(4000)
    ).iloc[0]
    solved, chance = np.arange(41), float(SPREAD.pass_at_k(8))
    share = solved / 40
    half = 2.0226909200367604 * np.sqrt(share * (1 - share) / 39)
    held = (share - half <= chance) & (chance <= share + half)
    exact = binom.pmf(solved, 40, chance)[held].sum()
    assert found["low"] - 0.005 < exact < found["high"] + 0.005
    assert found["truth"] == pytest.approx(chance)
    assert found["low"] < found["coverage"] < found["high"]


def test_the_changes_are_covered_each_and_together(replications):
    number = replications(3000)
    for prompts in ("new", "fixed"):
        found = simulate_change_coverage(
            SPREAD,
            CLUSTERS,
            60,
            16,
            [1, 8],
            kept=0.6,
            prompts=prompts,
            replications=number,
            draws=1000,
        )
        assert found["method"].tolist() == ["paired", "paired", "joint"]
        assert found["coverage"].between(*limits(number, 0.94, 0.965)).all(), found


def test_each_at_95_percent_is_not_both_at_95_percent():
    found = simulate_change_coverage(SPREAD, CLUSTERS, 60, 16, [1, 8], kept=0, replications=2000)
    assert found["truth"][0] == pytest.approx(CLUSTERS.pass_at_k(1) - SPREAD.pass_at_k(1))


def test_a_batch_is_a_stack_of_tallies():
    correct = np.array([[0, 2, 2], [4, 1, 0]])
    batch = _batch(correct, 4)
    for row, counts in zip(correct, batch.weight, strict=True):
        one = tally(4, row)
        assert counts[one.c.astype(int)].tolist() == one.weight.tolist()
        assert counts.sum() == 3


def test_cells_of_a_table_in_percent():
    table = pd.DataFrame({"coverage": [0.9534, 1.0], "low": [0.946, 0.99], "high": [0.9594, 1.0]})
    assert percent_cells(table).tolist() == ["95.3±0.7", "100.0±1.0"]


def test_the_seed_decides():
    def run(seed):
        return coverage(SPREAD, 20, 8, [2], replications=50, seed=seed)

    assert run(0).tolist() == run(0).tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SuccessLaw("odd", ((0.5, 1, 1),)), "masses of the law 'odd' must add up to 1"),
        (lambda: SuccessLaw("odd", ((1, 0, 1),)), "all positive"),
        (lambda: simulate_coverage(SPREAD, 20, 8, [9]), "k = 9 exceeds"),
        (lambda: simulate_coverage(SPREAD, 20, 8, [2], methods=("exact",)), "no method 'exact'"),
        (lambda: simulate_coverage(SPREAD, 20, 8, [2], prompts="old"), "prompts must be"),
        (lambda: simulate_change_coverage(SPREAD, SPREAD, 20, 8, [9]), "k = 9 exceeds"),
        (lambda: simulate_change_coverage(SPREAD, SPREAD, 20, 8, [2], kept=2), "kept"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
