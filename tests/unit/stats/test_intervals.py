import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, t

from passgrad.errors import UserError
from passgrad.metrics import pass_at_k
from passgrad.stats import pass_at_k_band, pass_at_k_interval, success_interval
from passgrad.stats.intervals import correlation_of, dispersion, monotone, simultaneous_critical
from passgrad.stats.tally import tally

COUNTS = np.random.default_rng(1).binomial(16, np.linspace(0.02, 0.95, 80))
KS = [1, 2, 4, 8, 16]


def test_the_score_interval_is_near_the_normal_one_away_from_the_ends():
    mean, low, high = pass_at_k_interval(16, COUNTS, 4)
    values = pass_at_k(16, COUNTS, 4)
    half = t.ppf(0.975, 79) * values.std(ddof=1) / math.sqrt(80)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * half, rel=0.06)
    assert low < mean < high


def test_at_k_equal_n_it_is_wilson_for_the_share_of_prompts_solved():
    # Then an estimate is 1 or 0, so phi is 1, but for P / (P - 1) in the sample variance.
    counts = np.array([0] * 7 + [1] * 3 + [4] * 20)
    _, low, high = pass_at_k_interval(4, counts, 4)
    level = 2 * t.cdf(1.959963984540054, 29) - 1
    narrower = pass_at_k_interval(4, counts, 4, level=level)
    assert narrower[1:] == pytest.approx(
        [float(x) for x in success_interval(23, 30, method="wilson")], abs=1e-12
    )
    assert low < narrower[1]
    assert high > narrower[2]


@pytest.mark.parametrize("prompts", ["new", "fixed"])
def test_it_keeps_a_length_where_every_estimate_is_one(prompts):
    counts = [16] * 40
    assert pass_at_k_interval(16, counts, 12, method="bootstrap") == (1, 1, 1)
    mean, low, high = pass_at_k_interval(16, counts, 12, prompts=prompts)
    assert (mean, high) == (1, 1)
    assert low == pytest.approx(1 / (1 + t.ppf(0.975, 39) ** 2 / 40))


def test_one_prompt_that_nearly_fails_does_not_make_it_short():
    counts = [16] * 39 + [1]
    values = pass_at_k(16, np.array(counts), 15)
    normal = 1.96 * values.std() / math.sqrt(40)
    _, low, _ = pass_at_k_interval(16, counts, 15)
    assert normal < 0.004
    assert 0.9 < low < 0.94


def test_the_readings_differ_as_the_variances_do():
    new, fixed = (pass_at_k_interval(16, COUNTS, 4, prompts=p) for p in ("new", "fixed"))
    assert new[0] == fixed[0]
    assert fixed[2] - fixed[1] < 0.6 * (new[2] - new[1])


def test_phi_is_one_without_failures_and_shrinks_with_what_is_seen():
    ks = np.array([1, 8])
    assert dispersion(tally(8, [8] * 30), ks, "new").tolist() == [1, 1]
    few, many = (dispersion(tally(8, [7, 8] * m), np.array([1]), "new")[0] for m in (5, 500))
    assert many < few < 1
    values = pass_at_k(8, np.array([7, 8] * 500), 1)
    assert many == pytest.approx(values.var() / (values.mean() * (1 - values.mean())), rel=0.05)


def test_the_bootstrap_has_the_width_of_the_normal_interval_over_prompts():
    mean, low, high = pass_at_k_interval(16, COUNTS, 4, method="bootstrap", num_resamples=20_000)
    values = pass_at_k(16, COUNTS, 4)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(80), rel=0.04)
    assert low < mean < high


def test_the_seed_decides_the_bootstrap():
    def ends(seed):
        return pass_at_k_interval(16, COUNTS, 4, method="bootstrap", seed=seed)

    assert ends(0) == ends(0) != ends(1)


def test_resampling_the_samples_would_turn_the_estimate_into_the_plug_in():
    n, c, k = 8, 2, 4
    again = binom.pmf(np.arange(n + 1), n, c / n) @ pass_at_k(n, np.arange(n + 1), k)
    assert again == pytest.approx(1 - (1 - c / n) ** k)
    assert again < pass_at_k(n, c, k) - 0.05


@pytest.mark.parametrize("prompts", ["new", "fixed"])
def test_the_band_holds_the_intervals_and_not_much_more(prompts):
    band = pass_at_k_band(16, COUNTS, KS, prompts=prompts)
    single = np.array([pass_at_k_interval(16, COUNTS, k, prompts=prompts) for k in KS])
    assert band.estimate == pytest.approx(single[:, 0])
    assert (band.low < single[:, 1]).all()
    assert (band.high > single[:, 2]).all()
    # Between the quantile of one k and that of five independent ones.
    bonferroni = t.ppf(1 - 0.025 / 5, 79)
    assert t.ppf(0.975, 79) < band.critical < bonferroni
    assert band.to_frame().columns.tolist() == ["k", "estimate", "low", "high"]


def test_a_band_over_one_k_is_the_interval():
    band = pass_at_k_band(16, COUNTS, 4)
    assert (band.low[0], band.high[0]) == pytest.approx(pass_at_k_interval(16, COUNTS, 4)[1:])


def test_a_band_keeps_a_length_where_every_estimate_is_one():
    band = pass_at_k_band(16, [16] * 40, KS)
    assert (band.low < 0.92).all()
    assert band.critical > t.ppf(0.975, 39)


@pytest.mark.parametrize(("correlation", "expected"), [(0.0, 1 - 0.05), (1.0, None)])
def test_the_critical_value_of_two(correlation, expected):
    matrix = np.array([[1, correlation], [correlation, 1]])
    found = float(simultaneous_critical(matrix, 10**6, 0.95, draws=200_000))
    level = 0.95 if expected is None else math.sqrt(expected)  # of each, when independent
    assert found == pytest.approx(t.ppf((1 + level) / 2, 10**6), abs=0.02)


def test_critical_values_are_vectorised_and_seeded():
    stack = np.array([np.eye(3), np.full((3, 3), 0.5) + np.eye(3) / 2])
    found = simultaneous_critical(stack, 30, 0.95)
    assert found.shape == (2,)
    assert found[1] == simultaneous_critical(stack[1], 30, 0.95)
    assert found[1] < found[0]


def test_a_row_without_variance_is_uncorrelated():
    found = correlation_of(np.array([[4.0, 0.0, 2.0], [0, 0, 0], [2, 0, 4]]))
    assert found.tolist() == [[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 17}, "k = 17 exceeds num_samples = 16"),
        ({"k": [1, 2]}, "use pass_at_k_band"),
        ({"level": 2.0}, "level must lie"),
        ({"prompts": "old"}, 'prompts must be "new"'),
        ({"method": "wald"}, "got 'wald'"),
        ({"method": "bootstrap", "prompts": "fixed"}, "no reading"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        pass_at_k_interval(16, COUNTS, **{"k": 4, **options})


def test_a_band_refuses_another_reading():
    with pytest.raises(UserError, match="prompts must be"):
        pass_at_k_band(16, COUNTS, KS, prompts="some")


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(0, 16), min_size=3, max_size=40),
    order=st.permutations([1, 2, 5, 8, 16]),
)
def test_a_band_rises_with_k_and_holds_its_estimate(counts, order):
    rising = pass_at_k_band(16, counts, order, draws=200).to_frame().sort_values("k")
    for column in ("low", "high"):
        assert (rising[column].diff().dropna() >= 0).all()
    assert (rising["low"] <= rising["estimate"] + 1e-12).all()
    assert (rising["estimate"] <= rising["high"] + 1e-12).all()


@settings(deadline=None, max_examples=200)
@given(
    ends=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=4, max_size=4),
    curve=st.lists(st.floats(0, 1), min_size=4, max_size=4).map(sorted),
    order=st.permutations(range(4)),
)
def test_a_monotone_band_holds_every_rising_curve_that_the_band_held(ends, curve, order):
    order = np.array(order)
    low, high = (np.array(e) for e in zip(*map(sorted, ends), strict=True))
    curve = np.array(curve)
    held = ((low <= curve) & (curve <= high)).all()
    cut_low, cut_high = monotone(low[order], high[order], order + 1)
    assert ((cut_low <= curve[order]) & (curve[order] <= cut_high)).all() == held
