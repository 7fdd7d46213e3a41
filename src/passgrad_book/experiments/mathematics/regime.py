r"""How spread success rates are along an exact ascent, and the conflict at each step of it.

Ascent on pass@1 makes easy prompts easy: success rates move to the ends of [0, 1]. At each step
all of them are kept, with the exact :math:`\cos(\nabla J_1, \nabla J_k)` at some k and the
agreement of every prompt, from which :math:`\langle \nabla J_k, \nabla J_1 \rangle = E[w_k a]`
follows at any k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from passgrad.ascent.ascent import Direction, ascend
from passgrad.interference import conflict
from passgrad.objectives import Objective, PassAtK
from passgrad.worlds.base import World

if TYPE_CHECKING:
    from pandas import DataFrame


def follow_conflict(
    world: World,
    theta: Any = None,
    objective: Objective | Direction | None = None,
    *,
    ks: Sequence[int],
    step_size: float,
    steps: int,
) -> dict[str, DataFrame]:
    """Ascend ``objective`` (pass@1 by default) and measure before each step and after the last.

    :returns: ``curve``, one row a step and k; ``prompts``, one row a step and prompt.
    :raises UserError: As :func:`passgrad.interference.conflict` and
        :func:`passgrad.ascent.ascent.ascend` do.
    """
    import pandas as pd

    curves, prompts = [], []

    def measure(step: int, theta: Tensor) -> None:
        measured = conflict(world, theta, ks=list(ks))
        curves.append(measured.to_frame().assign(step=step))
        prompts.append(
            pd.DataFrame(
                {
                    "step": step,
                    "prompt": range(world.num_prompts),
                    "group": world.groups,
                    "mass": world.masses.numpy(),
                    "success": measured.success.numpy(),
                    "agreement": measured.agreement.numpy(),
                }
            )
        )

    objective = PassAtK(1) if objective is None else objective
    ascend(world, theta, objective, step_size=step_size, steps=steps, observe=measure)
    return {
        "curve": pd.concat(curves, ignore_index=True),
        "prompts": pd.concat(prompts, ignore_index=True),
    }


def spread(prompts: DataFrame, *, easy: float = 0.85, hard: float = 0.10) -> DataFrame:
    """One row a step of the table ``prompts``: mean and standard deviation of p under the prompt
    law, the masses above ``easy`` and below ``hard``, and the *split*, the standard deviation over
    the largest one that a law on [0, 1] with this mean can have, sqrt(m (1 - m)): 0 where all are
    alike, 1 where each p is 0 or 1.
    """
    import pandas as pd

    rows = []
    for step, part in prompts.groupby("step"):
        p, mass = part["success"].to_numpy(), part["mass"].to_numpy()
        mean = float(mass @ p)
        deviation = float((mass @ (p - mean) ** 2) ** 0.5)
        largest = (mean * (1 - mean)) ** 0.5
        rows.append(
            {
                "step": step,
                "pass_at_1": mean,
                "deviation": deviation,
                "split": deviation / largest if largest > 0 else 0.0,
                "easy": float(mass[p > easy].sum()),
                "hard": float(mass[p < hard].sum()),
            }
        )
    return pd.DataFrame(rows)


def first_conflict(prompts: DataFrame, *, largest: int = 1000) -> dict[int, float]:
    """For each step of the table ``prompts`` the first whole k of at most ``largest`` at which
    E[w_k a] is negative; nan where there is none.
    """
    orders = np.arange(2, largest + 1)[:, None]
    found = {}
    for step, part in prompts.groupby("step"):
        p, agreement, mass = (part[name].to_numpy() for name in ("success", "agreement", "mass"))
        # Divided by k, which has no part in the sign.
        below = (1 - p) ** (orders - 1) @ (mass * agreement) < 0
        found[int(str(step))] = float(orders[below.argmax(), 0]) if below.any() else float("nan")
    return found
