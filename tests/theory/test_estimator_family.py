"""Which objectives n samples can ascend without bias, and which of them with a sum of zero.

Everything here is a statement about the coefficients A_+(c), A_-(c); rational arithmetic decides
it without rounding where a rank or a sign is at stake.
"""

import math
from fractions import Fraction

import pytest
import torch

from passgrad.estimators import ESTIMATORS, CentredL2O, advantages, get_estimator

pytestmark = pytest.mark.statement("thm-unbiased-family", "thm-centred-unique", "cor-one-sample")


def bernstein(coefficients):
    """Monomial coefficients of sum_c b_c C(d, c) p^c (1 - p)^(d - c), exactly."""
    d = len(coefficients) - 1
    powers = [Fraction(0)] * (d + 1)
    for c, b in enumerate(coefficients):
        for j in range(d - c + 1):
            powers[c + j] += b * math.comb(d, c) * math.comb(d - c, j) * (-1) ** j
    return powers


def weight_coefficients(n, k):
    """n (A_+(c + 1) - A_-(c)) of the unbiased estimators: k C(n-1-c, k-1) / C(n-1, k-1)."""
    return [Fraction(k * math.comb(n - 1 - c, k - 1), math.comb(n - 1, k - 1)) for c in range(n)]


def rank(rows):
    """Rank of a matrix of fractions by elimination."""
    rows, found = [list(row) for row in rows], 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(found, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        for i in range(len(rows)):
            if i != found and rows[i][column]:
                factor = rows[i][column] / rows[found][column]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[found], strict=True)]
        found += 1
    return found


def centred_system(n, target):
    """Equations for (A_+(1..n), A_-(0..n-1)): steps are target / n, sums are zero."""
    rows = []
    for c in range(n):
        row = [Fraction(0)] * (2 * n + 1)
        row[c], row[n + c], row[-1] = Fraction(1), Fraction(-1), target[c] / n
        rows.append(row)
    for c in range(n + 1):
        row = [Fraction(0)] * (2 * n + 1)
        if c:
            row[c - 1] = Fraction(c)
        if c < n:
            row[n + c] = Fraction(n - c)
        rows.append(row)
    return rows


def test_the_steps_give_the_polynomial_of_the_weight_for_every_k_up_to_n(case):
    for n in range(1, 8):
        with case(n=n):
            for k in range(1, n + 1):
                weight = [Fraction(k * math.comb(k - 1, j) * (-1) ** j) for j in range(k)]
                padded = weight + [Fraction(0)] * (n - k)
                assert bernstein(weight_coefficients(n, k)) == padded


def test_the_basis_is_one_so_that_the_steps_are_unique_and_k_above_n_is_out_of_reach(case):
    for n in range(1, 8):
        with case(n=n):
            unit = [[Fraction(int(i == c)) for i in range(n)] for c in range(n)]
            # all polynomials of degree below n, no more
            assert rank([bernstein(row) for row in unit]) == n
            assert all(len(bernstein(row)) == n for row in unit)  # while w_{n+1} has degree n


def test_every_unbiased_estimator_has_these_steps(case):
    for name in [name for name, one in ESTIMATORS.items() if one.unbiased]:
        with case(name=name):
            one = get_estimator(name)
            for n in range(max(2, one.fewest), 9):
                for k in {"k": range(1, n - one.spare + 1), "n": [n], "none": [1]}[one.takes]:
                    expected = [float(b) / n for b in weight_coefficients(n, k)]
                    steps = one.payoff_steps(n, [k])[0]
                    torch.testing.assert_close(
                        steps, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14
                    )


def test_a_centred_unbiased_estimator_exists_up_to_k_n_minus_1_and_is_the_leave_two_out(case):
    for n in range(2, 8):
        with case(n=n):
            for k in range(1, n + 1):
                rows = centred_system(n, weight_coefficients(n, k))
                solvable = rank(rows) == rank([row[:-1] for row in rows])
                assert solvable == (k <= n - 1)
                if solvable:
                    assert rank([row[:-1] for row in rows]) == 2 * n  # unique
                    plus, minus = CentredL2O().tables(n, [k])
                    solution = [*plus[0, 1:].tolist(), *minus[0, :-1].tolist()]
                    for row in rows:
                        left = sum(float(a) * x for a, x in zip(row[:-1], solution, strict=True))
                        assert left == pytest.approx(float(row[-1]), abs=1e-14)


def test_any_centred_estimator_has_a_weight_of_degree_below_n_minus_1(case):
    """Solvability is the vanishing of the leading coefficient, for any target."""
    for n in range(2, 8):
        with case(n=n):
            generator = torch.Generator().manual_seed(n)
            target = [Fraction(int(x)) for x in torch.randint(-9, 9, (n,), generator=generator)]
            for change in (Fraction(0), Fraction(1)):
                leading = bernstein(target)[-1]
                # Take the leading coefficient away through the last entry, then leave some of it.
                fixed = [*target[:-1], target[-1] - leading + change]
                rows = centred_system(n, fixed)
                solvable = rank(rows) == rank([row[:-1] for row in rows])
                assert bernstein(fixed)[-1] == change
                assert solvable == (change == 0)


def test_the_centred_estimators_of_trainers_obey_it(case):
    """The last derivative of their weight vanishes: sum_c (-1)^c C(n-1, c) steps_c = 0."""
    for name in [name for name, one in ESTIMATORS.items() if one.centred]:
        with case(name=name):
            one, n = get_estimator(name), 8
            ks = {"k": [1, 3, 7], "n": [n], "none": [1]}[one.takes]
            signs = torch.tensor([(-1.0) ** c * math.comb(n - 1, c) for c in range(n)]).double()
            assert float((one.payoff_steps(n, ks) @ signs).abs().max()) < 1e-13


def test_subtracting_the_group_mean_costs_one_sample(case):
    """Positive payments only, then centred: the weight is that of n - 1 samples."""
    for n in range(2, 12):
        with case(n=n):
            generator = torch.Generator().manual_seed(n)
            paid = torch.rand(n, dtype=torch.float64, generator=generator)  # A_+(c) for c = 1..n
            c = torch.arange(1, n + 1, dtype=torch.float64)
            mean = c * paid / n
            after = torch.cat([mean.new_zeros(1), mean])
            steps = paid - after[1:] + after[:-1]
            # n - 1 samples with the same payments, in the basis of n samples (one degree up).
            fewer = paid[:-1] * (n - 1)
            j = torch.arange(n, dtype=torch.float64)
            up = torch.zeros(n, dtype=torch.float64)
            up[:-1] += (n - 1 - j[:-1]) / (n - 1) * fewer
            up[1:] += j[1:] / (n - 1) * fewer
            torch.testing.assert_close(n * steps, up, rtol=1e-12, atol=1e-12)


def test_three_estimators_are_the_leave_two_out_in_disguise(case):
    for n in range(3, 10):
        with case(n=n):
            rewards = (torch.arange(n)[None] < torch.arange(n + 1)[:, None]).double()
            l2o = advantages(rewards, list(range(1, n)), estimator="centred-l2o")
            torch.testing.assert_close(advantages(rewards, estimator="tang-centred"), l2o[n - 2])
            for k in range(1, n):
                numerator = advantages(rewards, k, estimator="passk-training-unscaled")
                torch.testing.assert_close(numerator, (n - k) / (n * k) * l2o[k - 1])
            harmonic = advantages(
                rewards,
                list(range(1, n)),
                estimator="centred-l2o",
                weights=[1 / j for j in range(1, n)],
            )
            torch.testing.assert_close(advantages(rewards, estimator="maxrl"), harmonic)
