from math import comb

import pytest

from passgrad.estimators import ESTIMATORS


def test_coefficients_by_hand():
    n, k = 6, 3
    tables = {
        name: ESTIMATORS[name].tables(n, [k])
        for name in ("plug-in", "plug-in-loo", "u-weight", "plug-in-centred")
    }
    for c in range(1, n + 1):
        weight = k * (1 - c / n) ** (k - 1)
        plus = {name: float(table[0][0, c]) for name, table in tables.items()}
        assert plus["plug-in"] == pytest.approx(weight / n)
        assert plus["plug-in-loo"] == pytest.approx(k * (1 - (c - 1) / (n - 1)) ** (k - 1) / n)
        unbiased = k * comb(n - c, k - 1) / comb(n, k - 1)
        assert plus["u-weight"] == pytest.approx(unbiased / n)
        assert plus["plug-in-centred"] == pytest.approx(weight * (n - c) / (n * (n - 1)))
    for name in ("plug-in", "plug-in-loo", "u-weight"):
        assert not tables[name][1].any()


def test_the_plug_in_weight_is_too_small_on_hard_prompts_and_too_large_on_solved_ones():
    factor = ESTIMATORS["plug-in"].bias_factor([0.02, 0.3, 0.9], 16, 4)
    assert factor[0] < factor[1] < 1 < factor[2]


def test_weights_of_the_other_answers_are_unbiased_up_to_k_2_only():
    one = ESTIMATORS["plug-in-loo"]
    assert one.bias_factor(0.4, 7, [1, 2]).tolist() == pytest.approx([1, 1])
    assert float(one.bias_factor(0.4, 7, 3)) > 1.05
