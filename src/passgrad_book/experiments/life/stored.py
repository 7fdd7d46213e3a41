"""Lives of a conflict in the world of opposite signs: what the chapter stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from passgrad.ascent.ascent import Direction
from passgrad.ascent.conflict_free import ConflictFreeDirection
from passgrad.errors import UserError
from passgrad.objectives import Objective, PassAtK
from passgrad_book.build.experiment import SINGLE, experiment
from passgrad_book.experiments.life.ascent import conflict_along
from passgrad_book.experiments.life.opposite_signs import in_double, opposite_signs_world

if TYPE_CHECKING:
    from pandas import DataFrame


def direction_of(ascended: str) -> Objective | Direction:
    """The objective or direction of a name: ``"pass@8"``, or ``"pcgrad@8"`` for a combination of
    the gradients of pass@1 and pass@8. UserError for another name.
    """
    name, _, order = ascended.partition("@")
    if not order.isdecimal():
        raise UserError(f"{ascended!r} names no ascent: give pass@8, pcgrad@8, constrained@8, ...")
    if name == "pass":
        return PassAtK(int(order))
    return ConflictFreeDirection(int(order), aggregator=name)


@experiment(version=1, label="{ascended}-seed-{seed}")
def conflict_life(
    *,
    ascended: str,
    seed: int,
    ks: Sequence[int],
    step_size: float,
    steps: int,
    every: int | Sequence[int],
    world: Mapping[str, Any],
) -> Mapping[str, DataFrame]:
    """:func:`~passgrad_book.experiments.life.ascent.conflict_along` in the world of opposite signs,
    whose model is trained from ``seed``. Steps are in float32, measurements in float64.

    ``ascended`` is a name of :func:`direction_of`; ``world`` are options of
    :func:`~passgrad_book.experiments.life.opposite_signs.opposite_signs_world`. Tables: ``orders``
    and ``path``.
    """
    start = opposite_signs_world(seed=seed, **world)
    return conflict_along(
        start, None, direction_of(ascended), ks=ks, step_size=step_size, steps=steps, every=every,
        measured=in_double(start),
    )  # fmt: skip


conflict_life.witnessed(
    ascended="pcgrad@8", seed=0, ks=[2, 8], step_size=0.01, steps=4, every=2,
    world={"hard_fraction": 0.38}, tolerance=SINGLE,
)  # fmt: skip
