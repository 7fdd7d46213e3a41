import numpy as np
import pytest
from scipy.stats import t

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.stats import paired_change
from passgrad.stats.variance import pass_at_k_variance_estimate

RNG = np.random.default_rng(5)
RATES = RNG.beta(0.5, 0.5, size=120)
BEFORE = RNG.binomial(16, RATES)
AFTER = RNG.binomial(16, 0.5 * RATES + 0.2)
KS = [1, 8]


def test_the_estimates_and_their_correlation():
    found = paired_change(16, BEFORE, AFTER, KS)
    old, new = (pass_at_k(16, counts[:, None], KS) for counts in (BEFORE, AFTER))
    assert found.change == pytest.approx((new - old).mean(axis=0))
    assert found.correlation == pytest.approx(np.corrcoef((new - old).T))
    assert (found.low < found.change).all()
    assert (found.change < found.high).all()
    assert found.to_frame().columns.tolist() == ["k", "before", "after", "change", "low", "high"]


def test_away_from_the_ends_its_length_is_that_of_the_paired_differences():
    found = paired_change(16, BEFORE, AFTER, KS, simultaneous=False)
    difference = pass_at_k(16, AFTER[:, None], KS) - pass_at_k(16, BEFORE[:, None], KS)
    half = t.ppf(0.975, 119) * difference.std(axis=0, ddof=1) / np.sqrt(120)
    assert found.critical == pytest.approx(t.ppf(0.975, 119))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)


def test_holding_both_takes_longer_intervals_than_holding_each():
    both, each = (paired_change(16, BEFORE, AFTER, KS, simultaneous=s) for s in (True, False))
    assert (both.high - both.low > each.high - each.low).all()
    assert each.critical < both.critical < t.ppf(1 - 0.025 / 2, 119) + 0.02


def test_pairing_shortens_the_interval():
    paired = paired_change(16, BEFORE, AFTER, KS)
    shuffled = paired_change(16, BEFORE, np.random.default_rng(0).permutation(AFTER), KS)
    assert (paired.high - paired.low < 0.9 * (shuffled.high - shuffled.low)).all()


def test_with_the_prompts_fixed_only_the_samples_vary():
    found = paired_change(16, BEFORE, AFTER, KS, prompts="fixed", simultaneous=False)
    within = sum(
        pass_at_k_variance_estimate(16, counts[:, None], KS).mean(axis=0)
        for counts in (BEFORE, AFTER)
    )
    half = t.ppf(0.975, 119) * np.sqrt(within / 120)
    ratio = (found.high - found.low) / (2 * half)
    assert ratio[0] == pytest.approx(1, abs=0.05)
    assert 1 < ratio[1] < 1.3  # at k = 8 the cautious variance of a beta law is the larger one


def test_two_checkpoints_that_solve_everything_may_differ_all_the_same():
    found = paired_change(16, [16] * 40, [16] * 40, [1, 16])
    assert found.change.tolist() == [0, 0]
    assert (found.low < -0.05).all()
    assert (found.high > 0.05).all()


def test_the_sizes_may_differ():
    found = paired_change(16, BEFORE, AFTER // 2, KS, num_samples_after=8)
    assert found.after == pytest.approx(pass_at_k(8, (AFTER // 2)[:, None], KS).mean(axis=0))
    assert found.before == pytest.approx(pass_at_k(16, BEFORE[:, None], KS).mean(axis=0))


def test_exchanging_the_checkpoints_turns_the_signs():
    there, back = paired_change(16, BEFORE, AFTER, KS), paired_change(16, AFTER, BEFORE, KS)
    assert there.low == pytest.approx(-back.high)
    assert there.high == pytest.approx(-back.low)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((16, BEFORE, AFTER[:-1], KS), {}, "120 prompts, those after of 119"),
        ((16, BEFORE, AFTER, [1, 17]), {}, "k = 17 exceeds"),
        ((16, BEFORE, AFTER, KS), {"prompts": "both"}, "prompts must be"),
        ((16, BEFORE, AFTER, KS), {"level": 0}, "level must lie"),
        ((16, BEFORE[:1], AFTER[:1], KS), {}, "at least 2 prompts"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        paired_change(*arguments, **options)
