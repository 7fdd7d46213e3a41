"""Estimates and influences of products by part, from gradients of halves and folds; the formulas
are in :mod:`passgrad.measurement.parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.estimators import Estimator
from passgrad.measurement.crossfit import Half, Split, check_orders, order_advantages, split_halves
from passgrad.measurement.metric import PLAIN, Metric, shrunk
from passgrad.measurement.samples import PartedGradients, Samples
from passgrad.measurement.store import Kept
from passgrad.orders import Orders
from passgrad.progress import Progress, Silent

_CHUNK = 2**20  # numbers that are multiplied in float64 at a time


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
    """(S, J, ..., P, F)."""


def part_terms(
    samples: PartedGradients,
    ks: int | Iterable[int],
    estimator: Estimator,
    split: Split,
    *,
    metrics: Sequence[Metric | Literal["estimated"]] = (PLAIN,),
    folds: int = 16,
    batches: int = 8,
    seed: int = 0,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> PartTerms:
    """What :func:`passgrad.measurement.parts.estimate_parts` makes intervals of.

    Raises UserError for less than two folds or one minibatch, and for metrics, orders and numbers
    of samples that do not fit.
    """
    if folds < 2:
        raise UserError(f"folds is {folds}: an error needs at least 2 of them")
    if batches < 1:
        raise UserError(f"batches is {batches}: give at least 1")
    kept = kept or Kept()
    checked = Samples.of(samples)
    rewards, masses, shape = checked.rewards, checked.masses, checked.shape
    orders = Orders.of(ks).with_one()
    apart, rest = _apart(shape, split, seed, wanted="estimated" in metrics)
    halves = _halves(rest, split, seed)
    check_orders(orders, halves, split, estimator)
    totals = [_weights(half, rewards, masses, orders, estimator) for half in halves]
    pieces = _pieces(halves, rest, totals, rewards, masses, orders, estimator, split, folds, seed)
    prepared: list[_Prepared] = []
    for metric in metrics:
        if isinstance(metric, Metric):
            samples.check(metric)
            prepared.append(_Prepared(samples, [metric.key], partial(_itself, metric)))
        else:
            assert apart is not None
            rows = _minibatches(apart, rewards, masses, estimator, batches, seed)
            prepared.append(_Prepared(samples, rows, partial(_estimated, samples, rows)))
    progress = progress or Silent()
    named = ", ".join(map(str, orders[1:] or orders))
    progress.stage(f"parts of the model at k = {named}", 1 + sum(map(len, pieces)))
    work = _Work(samples, prepared, kept, totals, progress)
    # In this order no more than the totals of both halves are in memory at once.
    second = [work.fold(one, other=0) for one in pieces[1]]
    table = work.whole()
    work.drop(0)
    first = [work.fold(one, other=1) for one in pieces[0]]
    plain = [isinstance(metric, Metric) and metric.inverse is None for metric in metrics]
    inner = _by_part(samples, (table[:, 0] + table[:, 1]) / 2, plain)
    pulls = [_by_part(samples, torch.stack(one, dim=-2), plain) for one in (first, second)]
    if split == "completions":
        influence = (pulls[0] + pulls[1]) / 2
    else:
        influence = torch.cat(
            [_centred(p, one, h) for p, one, h in zip(pulls, pieces, halves, strict=True)], dim=-2
        )
    return PartTerms(
        orders, inner, _by_part(samples, table[:, 2], plain), influence.transpose(-1, -2)
    )


@dataclass(frozen=True, eq=False)
class _Piece:
    """A fold: how many prompts, and its coefficients (J, ..., M, n)."""

    size: int
    weights: Tensor


def _weights(
    half: Half, rewards: Tensor, masses: Tensor, orders: Sequence[int], estimator: Estimator
) -> Tensor:
    """Coefficients (J, ..., M, n) of the gradients of a half, for all prompts."""
    shape = (rewards.shape[-2], rewards.shape[-1])
    scale = masses.new_zeros(shape[0])
    scale[half.prompts] = masses[half.prompts] * (shape[0] / len(half.prompts))
    advantages = order_advantages(half.take(rewards), orders, estimator)
    return half.put(advantages, shape) * scale[:, None]


def _pieces(
    halves: Sequence[Half],
    rest: Half,
    totals: Sequence[Tensor],
    rewards: Tensor,
    masses: Tensor,
    orders: Sequence[int],
    estimator: Estimator,
    split: Split,
    folds: int,
    seed: int,
) -> list[list[_Piece]]:
    """The folds of each half."""
    generator = torch.Generator().manual_seed(seed + 7)
    shape = (rewards.shape[-2], rewards.shape[-1])

    def divided(prompts: Tensor, weights: Tensor) -> list[_Piece]:
        mixed = prompts[torch.randperm(len(prompts), generator=generator)]
        made = []
        for some in mixed.tensor_split(min(folds, len(prompts))):
            inside = weights.new_zeros(shape[0])
            inside[some] = 1
            made.append(_Piece(len(some), weights * inside[:, None]))
        return made

    if split == "prompts":
        return [divided(half.prompts, c) for half, c in zip(halves, totals, strict=True)]
    # Another seed than that of the first split.
    first, second = _halves(rest, "completions", seed + 1_000_003)
    change = _weights(first, rewards, masses, orders, estimator) - _weights(
        second, rewards, masses, orders, estimator
    )
    both = divided(rest.prompts, change)
    return [
        [_Piece(one.size, half.put(half.take(one.weights), shape)) for one in both]
        for half in halves
    ]


def _centred(pulls: Tensor, pieces: Sequence[_Piece], half: Half) -> Tensor:
    """(..., F, P) influences of the folds of a half of prompts, from their psi."""
    share = torch.tensor([one.size for one in pieces], dtype=torch.float64) / len(half.prompts)
    centred = pulls - share[:, None] * pulls.sum(dim=-2, keepdim=True)
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
    apart: Half, rewards: Tensor, masses: Tensor, estimator: Estimator, batches: int, seed: int
) -> list[Tensor]:
    """Coefficients (..., M, n) of the gradients of pass@1 of minibatches of prompts."""
    shape = (rewards.shape[-2], rewards.shape[-1])
    weights = apart.put(order_advantages(apart.take(rewards), [1], estimator)[0], shape)
    generator = torch.Generator().manual_seed(seed + 5)
    mixed = apart.prompts[torch.randperm(len(apart.prompts), generator=generator)]
    made = []
    for some in mixed.tensor_split(min(batches, len(mixed))):
        scale = masses.new_zeros(shape[0])
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
    """Products of gradients in all metrics, each piece kept as soon as it is known."""

    def __init__(
        self,
        samples: PartedGradients,
        metrics: Sequence[_Prepared],
        kept: Kept,
        totals: Sequence[Tensor],
        progress: Progress,
    ) -> None:
        self.samples, self.metrics, self.kept, self.totals = samples, metrics, kept, totals
        self.held: dict[int, list[Mapping[str, Tensor]]] = {}
        self.key = [row.double() for metric in metrics for row in metric.key]
        self.progress = progress
        self.leading = samples.rewards.ndim - 2

    def total(self, half: int) -> list[Mapping[str, Tensor]]:
        """The gradients of a half at all orders."""
        if half not in self.held:
            self.held[half] = [self.samples.gradient(row) for row in self.totals[half]]
        return self.held[half]

    def drop(self, half: int) -> None:
        """Free the gradients of a half."""
        self.held.pop(half, None)

    def whole(self) -> Tensor:
        """(S, 3, J, ..., U): <G_B(1), G_A(j)>, <G_B(j), G_A(1)> and <G_B(j), G_A(j)>."""

        def compute() -> Tensor:
            a, b = self.total(0), self.total(1)
            first = self.products(b[0], a)
            rows = [self.products(b[j], [a[0], a[j]]) for j in range(len(b))]
            along = torch.stack([row[:, 0] for row in rows], dim=1)
            same = torch.stack([row[:, 1] for row in rows], dim=1)
            return torch.stack([first, along, same], dim=1)

        return self._keep("parts", compute, *self.totals)

    def fold(self, piece: _Piece, other: int) -> Tensor:
        """The psi of a fold at every order, (S, J, ..., U)."""

        def compute() -> Tensor:
            if not piece.weights.any():
                shape = (len(self.metrics), *piece.weights.shape[:-2], len(self.samples.units))
                return torch.zeros(shape, dtype=torch.float64)
            there = self.total(other)
            first = self.products(self.samples.gradient(piece.weights[0]), there)
            rest = [
                self.products(self.samples.gradient(row), there[:1])[:, 0]
                for row in piece.weights[1:]
            ]
            return first + torch.stack([first[:, 0], *rest], dim=1)

        return self._keep("fold", compute, piece.weights, self.totals[other])

    def _keep(self, name: str, compute: Callable[[], Tensor], *made_from: Tensor) -> Tensor:
        found = self.kept.tensor(name, *made_from, *self.key, compute=compute)
        self.progress.advance()
        return found

    def products(self, one: Mapping[str, Tensor], others: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """<one, P^-1 other> in each metric and unit: (S, L, ..., U) float64."""
        rows = []
        for metric in self.metrics:
            columns = [
                self._product(one[unit], [other[unit] for other in others], metric.scale(unit))
                for unit in self.samples.units
            ]
            rows.append(torch.stack(columns, dim=-1))
        return torch.stack(rows)

    def _product(self, one: Tensor, others: Sequence[Tensor], scale: Tensor | None) -> Tensor:
        """(L, ...)."""
        if self.leading:
            weighed = one if scale is None else one * scale
            return torch.stack([weighed * other for other in others]).double()
        result = torch.zeros(len(others), dtype=torch.float64, device=one.device)
        flat = one.reshape(-1).split(_CHUNK)
        scales = [None] * len(flat) if scale is None else scale.reshape(-1).split(_CHUNK)
        rest = zip(*(other.reshape(-1).split(_CHUNK) for other in others), strict=True)
        for piece, weight, there in zip(flat, scales, rest, strict=True):
            wide = piece.double()
            if weight is not None:
                wide *= weight.to(wide.device)
            result += torch.stack([torch.dot(wide, other.double()) for other in there])
        return result.cpu()


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
