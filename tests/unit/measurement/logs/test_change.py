"""Two windows of counts: the mean over prompts, its intervals, and what is refused."""

import numpy as np
import pytest

from passgrad.errors import UserError
from passgrad.measurement.logs.change import (
    Pair,
    first_order,
    mean_with_band,
    pair_of,
    realised,
    within_prompts,
)
from passgrad.measurement.logs.visits import Visits, Window
from passgrad.orders import Orders

KS = Orders.of([1, 2, 4])


def _pair(rng: np.random.Generator, size: int, n: int) -> tuple[Pair, np.ndarray]:
    p = rng.beta(0.3, 0.4, size)
    after = np.clip(p + 0.2 * p * (1 - p), 0, 1)
    truth = np.array([k * (1 - p) ** (k - 1) * (after - p) for k in KS])
    counts = (np.full(size, n), rng.binomial(n, p), np.full(size, n), rng.binomial(n, after))
    return Pair(Window(0, 0), Window(1, 1), np.arange(size), *counts), truth


def test_the_mean_comes_near_the_truth() -> None:
    pair, truth = _pair(np.random.default_rng(0), 40_000, 8)
    found = mean_with_band(first_order(pair, KS), 0.95)
    assert np.all(np.abs(found.value - truth.mean(axis=1)) < 4 * found.error)
    assert np.all(found.error < 0.01)


def test_intervals_cover() -> None:
    """Of 400 samples of 150 prompts; a band over three orders covers all of them at once."""
    rng = np.random.default_rng(1)
    p = rng.beta(0.3, 0.4, 1_000_000)
    truth = np.array([(k * (1 - p) ** (k - 1) * 0.2 * p * (1 - p)).mean() for k in KS])
    alone, together = np.zeros(3), 0
    for _ in range(400):
        pair, _ = _pair(rng, 150, 8)
        found = mean_with_band(first_order(pair, KS), 0.95)
        alone += (found.low <= truth) & (truth <= found.high)
        together += bool(((found.band_low <= truth) & (truth <= found.band_high)).all())
    assert np.all((alone / 400 > 0.92) & (alone / 400 < 0.985))
    assert 0.92 < together / 400 < 0.985


def test_intervals_of_fixed_prompts_cover() -> None:
    """Of 300 logs of the same 12 prompts; they are never too short, and not twice too long."""
    rng = np.random.default_rng(4)
    p, n = np.array([0.02, 0.06, 0.1, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0]), 16
    after = np.where(p < 0.2, p + 0.05, p - 0.05)
    truth = np.array([(k * (1 - p) ** (k - 1) * (after - p)).mean() for k in KS])
    held, lengths, values = np.zeros(3), np.zeros(3), []
    for _ in range(300):
        counts = (np.full(12, n), rng.binomial(n, p), np.full(12, n), rng.binomial(n, after))
        pair = Pair(Window(0, 0), Window(1, 1), np.arange(12), *counts)
        estimates = first_order(pair, KS)
        found = mean_with_band(estimates, 0.95, within_prompts(pair, KS, first_order))
        held += (found.low <= truth) & (truth <= found.high)
        lengths += np.asarray(found.error) / 300
        values.append(found.value)
    assert np.all(held / 300 > 0.92)
    assert np.all(lengths < 1.5 * np.std(values, axis=0))


def test_fixed_prompts_take_twice_the_answers() -> None:
    pair, _ = _pair(np.random.default_rng(5), 20, 8)
    orders = Orders.of([4, 5])
    found = mean_with_band(
        first_order(pair, orders), 0.95, within_prompts(pair, orders, first_order)
    )
    assert np.isfinite(found.low).tolist() == [True, False]


def test_order_one_is_the_change_itself() -> None:
    pair, _ = _pair(np.random.default_rng(2), 50, 8)
    assert first_order(pair, Orders.of(1)) == pytest.approx(realised(pair, Orders.of(1)))


def test_an_order_beyond_the_answers_of_the_second_window_has_no_realised_change() -> None:
    pair, _ = _pair(np.random.default_rng(3), 50, 8)
    short = Pair(
        pair.before, pair.after, pair.prompt, pair.samples_before, pair.correct_before,
        np.full(50, 3), np.minimum(pair.correct_after, 3),
    )  # fmt: skip
    change = mean_with_band(realised(short, KS), 0.95)
    assert np.isfinite(change.value).tolist() == [True, True, False]
    assert np.isfinite(change.band_low).tolist() == [True, True, False]
    assert np.isfinite(mean_with_band(first_order(short, KS), 0.95).value).all()


def _visits(num_prompts: int = 12) -> Visits:
    prompt = np.repeat(np.arange(num_prompts), 4)
    step = np.tile([0, 1, 2, 3], num_prompts)
    return Visits.of(prompt, step, 8, np.tile([1, 2, 3, 4], num_prompts))


def test_windows_must_follow_each_other() -> None:
    with pytest.raises(UserError, match=r"step 1 do not lie behind steps 0 to 2"):
        pair_of(_visits(), Window(0, 2), Window(1, 1), 1)


def test_too_few_answers_are_named() -> None:
    with pytest.raises(UserError, match=r"0 prompts have 17 answers in steps 0 to 1 .* of 12"):
        pair_of(_visits(), Window(0, 1), Window(2, 3), 17)


def test_prompts_of_one_window_alone_are_left_out() -> None:
    visits = Visits.of(
        [*range(12), *range(6, 20)], [0] * 12 + [1] * 14, 4, [1] * 26
    )  # 6 prompts are in both
    with pytest.raises(UserError, match="6 prompts have 1 answers"):
        pair_of(visits, Window(0, 0), Window(1, 1), 1)
    both = Visits.of([*range(12), *range(1, 12)], [0] * 12 + [1] * 11, 4, [1] * 23)
    assert pair_of(both, Window(0, 0), Window(1, 1), 1).num_prompts == 11
