r"""What each prompt adds to an estimated product, and with it the variance of the estimate.

To first order the estimate of :math:`\langle g_j, g_k \rangle` moves with the answers of half h to
prompt x by D(x) / 2 times

.. math:: \psi_{xh} = \langle u_{xh}(j), g_k \rangle + \langle u_{xh}(k), g_j \rangle,

with the gradients of the other half in place of g. Forgetting one of the two terms, as a bootstrap
does that leaves G as it is, gives intervals that are too short. The *influences* e(x) here are
scaled so that the sum of their squares estimates the variance (and the sum of products of two of
them a covariance):

* prompts "fixed": the answers of a prompt are split again, R times at random, into halves A' and
  B', and :math:`e = D (\psi_{A'} - \psi_{B'}) / 2`, over :math:`\sqrt{R}`. Two halves are
  independent draws, so that the square of their difference has twice the variance within the
  prompt as its mean, whatever the order is and however few answers there are. (Each d stays along
  the gradient that was measured. With the first halves alone the terms within a prompt would
  cancel; a jackknife counts the variance of order j in a U-statistic j times.)
* prompts "new": e is the deviation of :math:`M D \psi` from its mean over prompts (over those of
  the half, for halves of prompts), over :math:`\sqrt{M (M - 1)}`. Masses D that are not equal count
  as drawn with the prompts.

To first order in the noise of G the mean of such a variance is the true one. Of second order it
has for halves of prompts too much, as a jackknife (Efron and Stein, 1981), so that the intervals
err on the long side where the products are small against their noise.

For new prompts, halves of prompts have two independent gradients, and the interval is long unless
both come out small by chance. Halves of completions share their prompts: where the gradient is
not larger than its noise over prompts, the estimate and its standard error are small together, and
the interval is too short. Measured: :func:`passgrad.measurement.simulate_conflict_coverage`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from passgrad.estimators import Estimator
from passgrad.measurement.crossfit import CrossFit, Pairing, order_advantages, split_halves
from passgrad.stats.intervals import Prompts

Product = Literal["inner", "norm"]


def curve(fit: CrossFit, prompts: Prompts) -> Tensor:
    """<grad J_k, grad J_1> at every order of the curve: (K, ...)."""
    return _estimate(fit, prompts, lambda pairing: pairing.along_first)


def squared_norms(fit: CrossFit, prompts: Prompts) -> Tensor:
    """||grad J_k||^2 at the reported orders: (J, ...). It may be negative, as it is unbiased."""
    return _estimate(fit, prompts, lambda pairing: pairing.along_same)


def contributions(fit: CrossFit, prompts: Prompts) -> Tensor:
    """What each prompt adds to <grad J_k, grad J_1> at the reported orders: (J, ..., M); the sum
    over prompts is the estimate.
    """
    rows = fit.places(fit.reported)
    total = fit.masses.new_zeros(())
    for pairing in fit.pairings:
        part = pairing.along_first[rows] * fit.fold_masses(pairing.half) / 2
        spread = part.new_zeros(*part.shape[:-1], fit.shape[0])
        spread[..., pairing.half.prompts] = part
        total = total + spread
    if prompts == "fixed" or fit.split == "prompts":
        return total
    for pairing in _own(fit):
        total = total - pairing.along_first[rows] * fit.masses.square() / 2
    return total * fit.shape[0] / (fit.shape[0] - 1)


def answer_error(
    fit: CrossFit, estimator: Estimator, *, resplits: int = 32, seed: int = 0
) -> Tensor:
    """The standard error of the estimate at the reported orders that comes from the answers alone,
    the prompts held as they are: (J, ...).

    By halves of the answers to each prompt: nan at orders that these are too few for, and too large
    where k comes near to their size (with 8 in a half and k = 4, by 17 % measured).
    """
    if fit.shape[1] < 4:  # no halves
        along = fit.pairings[0].along_first
        return along.new_full((len(fit.reported), *along.shape[1:-1]), torch.nan)
    largest = fit.shape[1] // 2 - estimator.spare
    within = [k for k in fit.reported if k <= largest]
    e = _resplit(fit, "inner", estimator, resplits, seed, within)
    result = e.new_full((len(fit.reported), *e.shape[1:-2]), torch.nan)
    result[[fit.reported.index(k) for k in within]] = e.square().sum((-2, -1)).sqrt()
    return result


def agreement(fit: CrossFit, prompts: Prompts) -> Tensor:
    """a(x) = <grad p(x), grad J_1>: (..., M).

    For fixed prompts grad J_1 has the prompt itself in it. For new ones it is left out, which
    makes a(x) unbiased for the product with the gradient of the law.
    """
    first, second = fit.pairings
    if fit.split == "prompts":
        values = torch.cat([first.along_first[0], second.along_first[0]], dim=-1)
        places = torch.cat([first.half.prompts, second.half.prompts]).argsort()
        return values[..., places]
    values = (first.along_first[0] + second.along_first[0]) / 2
    if prompts == "fixed":
        return values
    size = fit.shape[0]
    return (values - fit.masses * _own(fit)[0].along_first[0]) * size / (size - 1)


def agreement_error(fit: CrossFit, estimator: Estimator) -> Tensor:
    """The standard error of a(x) given the direction: (..., M), nan with too few answers.

    Jackknife over the answers of each half. A prompt with only right or only wrong answers has
    error 0: nothing in it says how far its a(x) is from 0.
    """
    parts = [_jackknife(pairing, estimator) for pairing in fit.pairings]
    total = parts[0].new_zeros(*parts[0].shape[:-1], fit.shape[0])
    for pairing, part in zip(fit.pairings, parts, strict=True):
        total[..., pairing.half.prompts] += part
    return total.sqrt() / (1 if fit.split == "prompts" else 2)


def _jackknife(pairing: Pairing, estimator: Estimator) -> Tensor:
    """The variance of sum_i A_i d_i, (..., P), with the advantages of k = 1."""
    rewards, d = pairing.rewards, pairing.directional[0]
    m = rewards.shape[-1]
    # One answer fewer must still be enough for the estimator: two, for a comparison with others.
    if m < 3:
        return torch.full_like(rewards[..., 0], torch.nan)
    plus, minus = estimator.tables(m - 1, [1])
    counts = (rewards.sum(-1, keepdim=True) - rewards).long()
    right, wrong = rewards * d, (1 - rewards) * d
    right, wrong = (one.sum(-1, keepdim=True) - one for one in (right, wrong))
    without = plus[0, counts] * right + minus[0, counts] * wrong
    return (m - 1) * without.var(dim=-1, unbiased=False)


def influences(
    fit: CrossFit,
    prompts: Prompts,
    product: Product,
    estimator: Estimator,
    *,
    resplits: int = 32,
    seed: int = 0,
) -> Tensor:
    """The e of the product at the reported orders: (J, ..., M, R), R = 1 for new prompts.

    ``resplits`` is R for fixed prompts, ``seed`` theirs.
    """
    if prompts == "fixed":
        return _resplit(fit, product, estimator, resplits, seed, fit.reported)
    size = fit.shape[0]
    rows = fit.places(fit.reported)
    pulls = [_pull(pairing, rows, product) for pairing in fit.pairings]
    if fit.split == "prompts":
        result = pulls[0].new_zeros(*pulls[0].shape[:-1], size)
        for pairing, pull in zip(fit.pairings, pulls, strict=True):
            count = len(pairing.half.prompts)
            scaled = count * fit.fold_masses(pairing.half) * pull
            centred = scaled - scaled.mean(-1, keepdim=True)
            result[..., pairing.half.prompts] = centred / 2 / (count * (count - 1)) ** 0.5
        return result[..., None]
    within = fit.masses * _pull(_own(fit)[0], rows, product)
    scaled = fit.masses * ((pulls[0] + pulls[1]) / 2 - within) * size**2 / (size - 1)
    centred = scaled - scaled.mean(-1, keepdim=True)
    return centred[..., None] / (size * (size - 1)) ** 0.5


def _resplit(
    fit: CrossFit, product: Product, estimator: Estimator, resplits: int, seed: int,
    orders: Sequence[int],
) -> Tensor:  # fmt: skip
    """The e of answers at ``orders``, reported ones starting with 1: (J, ..., M, R)."""
    rewards = sum_of_halves(fit, [pairing.rewards for pairing in fit.pairings])
    rows = [fit.reported.index(k) for k in orders]
    d = sum_of_halves(fit, [pairing.directional[rows] for pairing in fit.pairings])
    # Half of the masses that the prompts of a half stand for, their own where all are in both.
    masses = torch.zeros_like(fit.masses)
    for pairing in fit.pairings:
        masses[pairing.half.prompts] += fit.fold_masses(pairing.half) / 2
    result = []
    for turn in range(resplits):
        pulls = []
        # Other seeds than that of the first split.
        again = split_halves(*fit.shape, "completions", seed=seed + (turn + 1) * 1_000_003)
        for half in again:
            weights = order_advantages(half.take(rewards), orders, estimator)
            along = half.take(d)
            if product == "norm":
                pull = 2 * weights * along
            else:
                pull = weights * along[:1] + weights[:1] * along
            pulls.append(pull.sum(-1))
        result.append(masses * (pulls[0] - pulls[1]) / 2)
    return torch.stack(result, dim=-1) / resplits**0.5


def sum_of_halves(fit: CrossFit, values: Sequence[Tensor]) -> Tensor:
    """(..., M, n) from the values (..., P, m) in each half."""
    halves = [pairing.half for pairing in fit.pairings]
    first, second = (half.put(one, fit.shape) for half, one in zip(halves, values, strict=True))
    return first + second


def _estimate(fit: CrossFit, prompts: Prompts, values: Callable[[Pairing], Tensor]) -> Tensor:
    halves = [values(pairing) @ fit.fold_masses(pairing.half) / 2 for pairing in fit.pairings]
    total = halves[0] + halves[1]
    if prompts == "fixed" or fit.split == "prompts":
        return total
    within = [values(pairing) @ fit.masses.square() / 2 for pairing in _own(fit)]
    size = fit.shape[0]
    return (total - within[0] - within[1]) * size / (size - 1)


def _pull(pairing: Pairing, rows: list[int], product: Product) -> Tensor:
    """psi, (J, ..., P)."""
    if product == "norm":
        return 2 * pairing.along_same
    return pairing.along_first[rows] + pairing.first_along


def _own(fit: CrossFit) -> tuple[Pairing, Pairing]:
    assert fit.own is not None, "the passes within prompts were not asked for"
    return fit.own
