"""Estimates and influences of products by part, from folds of prompts; the formulas are in
:mod:`passgrad.measurement.parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator
from passgrad.measurement.crossfit import Half, Split, check_orders, order_advantages, split_halves
from passgrad.measurement.metric import PLAIN, Metric, shrunk
from passgrad.measurement.parts.sketch import LENGTH, UnitSketch
from passgrad.measurement.samples import PartedGradients, Samples
from passgrad.measurement.store import Kept
from passgrad.orders import Orders
from passgrad.progress import Progress, Silent


@dataclass(frozen=True, eq=False)
class PartTerms:
    """Estimates and influences by part, replications in axes "..."."""

    orders: Orders
    """1, and the others."""
    inner: Tensor
    """(S, J, ..., P)."""
    norms: Tensor
    """(S, J, ..., P)."""
    influence: Tensor
    """Of ``inner``, (S, J, ..., P, F)."""
    norm_influence: Tensor
    """Of ``norms``, (S, J, ..., P, F)."""


@dataclass(frozen=True)
class Folding:
    """How samples are divided, and gradients folded.

    :raises UserError: For less than two folds, one minibatch, or numbers of a fold.
    """

    folds: int = 16
    """Of the prompts of a half; the error is read off their spread."""
    batches: int = 8
    """Minibatches behind a metric that is estimated."""
    length: int = LENGTH
    """Numbers that are kept of the gradient of a fold in each parameter."""
    seed: int = 0
    """Of halves, folds and signs."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise UserError(f"folds is {self.folds}: an error needs at least 2 of them")
        for name in ("batches", "length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give at least 1")


def part_terms(
    samples: PartedGradients,
    ks: int | Iterable[int],
    estimator: Estimator,
    split: Split,
    *,
    metrics: Sequence[Metric | Literal["estimated"]] = (PLAIN,),
    folding: Folding | None = None,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> PartTerms:
    """What :func:`passgrad.measurement.parts.estimate_parts` makes intervals of.

    Raises UserError for metrics, orders and numbers of samples that do not fit.
    """
    folding = folding or Folding()
    checked = Samples.of(samples)
    orders = Orders.of(ks).with_one()
    apart, rest = _apart(checked.shape, split, folding.seed, wanted="estimated" in metrics)
    halves = _halves(rest, split, folding.seed)
    check_orders(orders, halves, split, estimator)
    totals = [_weights(half, checked, orders, estimator) for half in halves]
    groups = _groups(halves, split, folding)
    prepared: list[_Prepared] = []
    for metric in metrics:
        if isinstance(metric, Metric):
            samples.check(metric)
            prepared.append(_Prepared(samples, [metric.key], partial(_itself, metric)))
        else:
            assert apart is not None
            rows = _minibatches(apart, checked, estimator, folding)
            prepared.append(_Prepared(samples, rows, partial(_estimated, samples, rows)))
    progress = progress or Silent()
    named = ", ".join(map(str, orders[1:] or orders))
    progress.stage(f"parts of the model at k = {named}", sum(map(len, groups)))
    work = _Work(samples, prepared, kept or Kept(), folding, progress)
    folds = [
        torch.stack([work.fold(_within(total, prompts)) for prompts in some], dim=-2)
        for total, some in zip(totals, groups, strict=True)
    ]
    sizes = [torch.tensor([len(x) for x in some], dtype=torch.float64) for some in groups]
    plain = [isinstance(metric, Metric) and metric.inverse is None for metric in metrics]
    made = _terms(folds, sizes, work.sketch, split)
    by_part = [_by_part(samples, values, plain) for values in made]
    return PartTerms(
        orders, by_part[0], by_part[1], by_part[2].transpose(-1, -2), by_part[3].transpose(-1, -2)
    )


def _terms(
    folds: Sequence[Tensor], sizes: Sequence[Tensor], sketch: UnitSketch, split: Split
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Products with order 1 and squared norms, (S, J, ..., U), and their influences,
    (S, J, ..., F, U), from the folds (S, J, ..., F, W) of both halves.
    """
    a, b = (one.double().sum(-2) for one in folds)
    inner = (sketch.products(a, b[:, :1]) + sketch.products(b, a[:, :1])) / 2
    norms = sketch.products(a, b)

    def pulls(here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """The psi of product and norm, (S, J, ..., F, U), along the totals ``there``."""
        there = there.unsqueeze(-2)
        one = sketch.products(here[:, :1], there) + sketch.products(here, there[:, :1])
        return one, 2 * sketch.products(here, there)

    if split == "completions":
        # The same prompts in both halves: half of their difference, along the mean of both.
        difference, mean = (folds[0].double() - folds[1].double()) / 2, (a + b) / 2
        by_inner, by_norm = pulls(difference, mean)
        return inner, norms, by_inner, by_norm
    both = [pulls(folds[0].double(), b), pulls(folds[1].double(), a)]
    centred = [
        [_centred(psi, size) for psi in pair] for pair, size in zip(both, sizes, strict=True)
    ]
    by_inner, by_norm = (torch.cat(pieces, dim=-2) for pieces in zip(*centred, strict=True))
    return inner, norms, by_inner, by_norm


def _within(total: Tensor, prompts: Tensor) -> Tensor:
    """The coefficients (J, ..., M, n) of these prompts alone."""
    inside = total.new_zeros(total.shape[-2])
    inside[prompts] = 1
    return total * inside[:, None]


def _weights(half: Half, samples: Samples, orders: Sequence[int], estimator: Estimator) -> Tensor:
    """Coefficients (J, ..., M, n) of the gradients of a half, for all prompts."""
    scale = samples.masses.new_zeros(samples.shape[0])
    scale[half.prompts] = samples.masses[half.prompts] * (samples.shape[0] / len(half.prompts))
    advantages = order_advantages(half.take(samples.rewards), orders, estimator)
    return half.put(advantages, samples.shape) * scale[:, None]


def _groups(halves: Sequence[Half], split: Split, folding: Folding) -> list[list[Tensor]]:
    """The prompts of the folds of each half; the same folds where both have all prompts."""
    generator = torch.Generator().manual_seed(folding.seed + 7)

    def divided(prompts: Tensor) -> list[Tensor]:
        mixed = prompts[torch.randperm(len(prompts), generator=generator)]
        return list(mixed.tensor_split(min(folding.folds, len(prompts))))

    if split == "completions":
        return [divided(halves[0].prompts)] * 2
    return [divided(half.prompts) for half in halves]


def _centred(psi: Tensor, sizes: Tensor) -> Tensor:
    """(..., F, U) influences of the folds of a half of prompts, from their psi."""
    share = sizes / sizes.sum()
    centred = psi - share[:, None] * psi.sum(dim=-2, keepdim=True)
    return centred / 2 / (1 - share.square().sum()).sqrt()


# --- which samples --------------------------------------------------------------------------------


def _apart(
    shape: tuple[int, int], split: Split, seed: int, *, wanted: bool
) -> tuple[Half | None, Half]:
    """A third of the samples for the metric, where one is wanted, and the others."""
    num_prompts, n = shape
    everyone, members = torch.arange(num_prompts), torch.arange(n).expand(num_prompts, n)
    if not wanted:
        return None, Half(everyone, members)
    generator = torch.Generator().manual_seed(seed + 3)
    if split == "completions":
        order = torch.rand(shape, generator=generator).argsort(dim=1)
        size = max(n // 3, 2)
        return Half(everyone, order[:, :size]), Half(everyone, order[:, size:].sort(dim=1).values)
    mixed = torch.randperm(num_prompts, generator=generator)
    size = max(num_prompts // 3, 1)
    some, others = mixed[:size].sort().values, mixed[size:].sort().values
    return Half(some, members[:size]), Half(others, members[size:])


def _halves(rest: Half, split: Split, seed: int) -> list[Half]:
    """The halves of these samples; without any kept apart those of ``split_halves`` itself."""
    num_prompts, n = rest.members.shape
    return [
        Half(rest.prompts[half.prompts], rest.members[half.prompts[:, None], half.members])
        for half in split_halves(num_prompts, n, split, seed=seed)
    ]


def _minibatches(
    apart: Half, samples: Samples, estimator: Estimator, folding: Folding
) -> list[Tensor]:
    """Coefficients (..., M, n) of the gradients of pass@1 of minibatches of prompts."""
    masses, paid = samples.masses, order_advantages(apart.take(samples.rewards), [1], estimator)
    weights = apart.put(paid[0], samples.shape)
    generator = torch.Generator().manual_seed(folding.seed + 5)
    mixed = apart.prompts[torch.randperm(len(apart.prompts), generator=generator)]
    made = []
    for some in mixed.tensor_split(min(folding.batches, len(mixed))):
        scale = masses.new_zeros(samples.shape[0])
        scale[some] = masses[some] / masses[some].sum()
        made.append(weights * scale[:, None])
    return made


# --- metrics and products -------------------------------------------------------------------------


class _Prepared:
    """A metric, there already or computed when it is first needed; ``key`` tells it from others."""

    def __init__(
        self, samples: PartedGradients, key: Sequence[Tensor], make: Callable[[], Metric]
    ) -> None:
        self.samples, self.key, self.make = samples, list(key), make

    @cached_property
    def metric(self) -> Metric:
        return self.make()

    def scale(self, unit: str) -> Tensor | None:
        """1 / P; None where there is none."""
        owner, inverse = self.samples.owner(unit), self.metric.inverse
        return None if owner is None or inverse is None else inverse[owner]


def _itself(metric: Metric) -> Metric:
    return metric


def _estimated(samples: PartedGradients, rows: Sequence[Tensor]) -> Metric:
    """From the gradients of minibatches, one at a time."""
    squares: dict[str, Tensor] = {}
    for row in rows:
        found = samples.gradient(row)
        for name in samples.parts[0].units:
            more = found[name].square() / len(rows)
            squares[name] = squares[name].add_(more) if name in squares else more
    return shrunk(squares, len(rows), samples.rewards.ndim - 2)


class _Work:
    """Folded gradients in all metrics, each fold kept as soon as it is known."""

    def __init__(
        self,
        samples: PartedGradients,
        metrics: Sequence[_Prepared],
        kept: Kept,
        folding: Folding,
        progress: Progress,
    ) -> None:
        self.samples, self.metrics, self.kept, self.progress = samples, metrics, kept, progress
        law = torch.tensor([folding.length, folding.seed], dtype=torch.float64)
        self.key = [law, *(row.double() for metric in metrics for row in metric.key)]
        self.leading = samples.rewards.ndim - 2
        self.sketch = UnitSketch(
            samples.units, leading=self.leading, length=folding.length, seed=folding.seed + 11
        )

    def fold(self, weights: Tensor) -> Tensor:
        """The gradients with these coefficients (J, ..., M, n), folded: (S, J, ..., W)."""
        found = self.kept.tensor(
            "fold", weights, *self.key, compute=partial(self._compute, weights)
        )
        self._widths()
        self.progress.advance()
        return found

    def _compute(self, weights: Tensor) -> Tensor:
        result: Tensor | None = None
        for column, scaled in directions(weights, together=not self.leading):
            vector = self.samples.gradient(scaled)
            folded = torch.stack([self._folded(vector, metric) for metric in self.metrics])
            del vector
            spread = column.to(folded).view(1, -1, *[1] * (folded.ndim - 1)) * folded[:, None]
            result = spread if result is None else result.add_(spread)
        assert result is not None
        # There before the first fold is, for a run that finds the folds.
        self._widths()
        return result

    def _widths(self) -> None:
        """Learn or keep how many numbers the fold of each unit has."""

        def compute() -> Tensor:
            return torch.tensor([self.sketch.widths[unit] for unit in self.samples.units])

        found = self.kept.tensor("widths", *self.key, compute=compute)
        self.sketch.widths = dict(zip(self.samples.units, found.tolist(), strict=True))

    def _folded(self, vector: Mapping[str, Tensor], metric: _Prepared) -> Tensor:
        scales: dict[str, Tensor | None] = {}
        for unit in self.samples.units:
            inverse = metric.scale(unit)
            scales[unit] = None if inverse is None else inverse.sqrt()
        return self.sketch.fold(vector, scales)


def directions(weights: Tensor, *, together: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
    """Vectors q (J,) and coefficients c (..., M, n) such that the sum of q c makes up the
    coefficients (J, ..., M, n) of J gradients.

    Answers whose J coefficients have one direction stand in one c, and each answer in one c alone:
    the gradients with all c take one pass over the answers, whatever J is. The advantages of binary
    rewards have one direction for the right answers to prompts with as many of them, and one for
    the wrong ones. Without ``together`` it is J passes, one for each order.

    >>> weights = torch.tensor([[[1.0, -1, 0]], [[2.0, 0, 0]]])
    >>> [(q.tolist(), c.tolist()) for q, c in directions(weights)]
    [([1.0, 0.0], [[0.0, -1.0, 0.0]]), ([0.5, 1.0], [[2.0, 0.0, 0.0]])]
    """
    if not weights.any():
        yield torch.zeros(len(weights), dtype=weights.dtype), weights[0]
        return
    if not together:
        for row, unit in zip(weights, torch.eye(len(weights), dtype=weights.dtype), strict=True):
            yield unit, row
        return
    flat = weights.flatten(1)
    largest = flat.gather(0, flat.abs().argmax(dim=0, keepdim=True))[0]
    used = largest != 0
    ratios = (flat[:, used] / largest[used]).round(decimals=12)
    columns, place = torch.unique(ratios, dim=1, return_inverse=True)
    for number, column in enumerate(columns.unbind(1)):
        scaled = torch.zeros_like(largest)
        scaled[used] = torch.where(place == number, largest[used], 0.0)
        yield column, scaled.view(weights.shape[1:])


def _by_part(samples: PartedGradients, values: Tensor, plain: Sequence[bool]) -> Tensor:
    """(S, ..., U) -> (S, ..., P); nan for units without parameters in metrics of parameters."""
    units = list(samples.units)
    member = torch.zeros(len(samples.parts), len(units), dtype=torch.float64)
    for row, part in zip(member, samples.parts, strict=True):
        row[[units.index(unit) for unit in part.units]] = 1
    found = values @ member.T
    lacking = torch.tensor([samples.owner(unit) is None for unit in units], dtype=torch.float64)
    for is_plain, rows in zip(plain, found, strict=True):
        if not is_plain:
            rows[..., (member @ lacking) > 0] = torch.nan
    return found
