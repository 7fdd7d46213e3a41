r"""A bandit with plateaus: prompts that share part of their logits, each with its own answer.

Prompt x is answered by a softmax over A actions with the logits

.. math:: \ell_{xy} = \sqrt{c} \, b_y + \sqrt{1 - c} \, W_{xy}

and its right answer is action x. The coupling c sets what is shared: at c = 0 nothing, which is
the tabular policy; at c = 1 everything, so that no policy can tell the prompts apart.
In between every prompt can be solved, but the prompt that is learned first writes its answer into
the shared logits and pushes the others down, and they learn the slower the lower they are: the two
conditions of ray interference (Schaul et al., 2019), negative interference and learning that is
coupled to performance, under which ascent on pass@1 stalls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.worlds.base import AnalyticWorld


class PlateauBandit(AnalyticWorld):
    r"""p(x) = softmax(sqrt(c) b + sqrt(1 - c) W[x])[x], with theta = (b, W[0], W[1], ...).

    b has ``num_actions`` entries (as many as prompts, where not given) and W one row of as many a
    prompt, so that d = (N + 1) A. The kernel is

    .. math:: \kappa(x, x') = (c + (1 - c) 1\{x = x'\}) \langle v_x, v_{x'} \rangle, \qquad
              v_x = p(x) (e_x - \pi_x),

    where :math:`v_x` is the gradient of p(x) in the logits of x. Raises UserError for fewer than
    two prompts, fewer actions than prompts, a coupling outside [0, 1] or masses that are no law.
    """

    def __init__(
        self,
        num_prompts: int = 8,
        coupling: float = 0.5,
        *,
        num_actions: int | None = None,
        masses: Sequence[float] | Tensor | None = None,
    ) -> None:
        num_actions = num_prompts if num_actions is None else num_actions
        if num_prompts < 2 or num_actions < num_prompts:
            raise UserError(
                "a plateau needs at least 2 prompts and an action for each, "
                f"got {num_prompts} prompts and {num_actions} actions"
            )
        if not 0 <= coupling <= 1:
            raise UserError(f"coupling must lie between 0 and 1, got {coupling}")
        if masses is None:
            masses = torch.full((num_prompts,), 1 / num_prompts, dtype=torch.float64)
        self.masses = torch.as_tensor(masses, dtype=torch.float64)
        if len(self.masses) != num_prompts:
            raise UserError(f"masses must have one entry for each of {num_prompts} prompts")
        if not ((self.masses >= 0).all() and abs(float(self.masses.sum()) - 1) < 1e-9):
            raise UserError("masses must be non-negative and sum to one")
        self.coupling, self.num_actions = coupling, num_actions
        self.num_parameters = (num_prompts + 1) * num_actions
        self.groups = ("easy",) + ("hard",) * (num_prompts - 1)

    def start(self, lean: float = 4.0) -> Tensor:
        """Theta at which prompt 0 is answered at random and all others lean to its answer.

        Each prompt but the first has the logit ``lean`` for action 0 and 0 for every other action,
        held in W. Raises UserError at coupling 1, where the prompts cannot differ.
        """
        if self.coupling == 1:
            raise UserError("at coupling 1 all prompts have one policy: take a coupling below 1")
        theta = torch.zeros(self.num_prompts + 1, self.num_actions, dtype=torch.float64)
        theta[2:, 0] = lean / math.sqrt(1 - self.coupling)
        return theta.flatten()

    def success_and_jacobian(
        self, theta: Tensor | Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """p(x): (N,), and the rows (sqrt(c) v_x, 0, ..., sqrt(1 - c) v_x, ..., 0): (N, d)."""
        table = self.parameters(theta).view(self.num_prompts + 1, self.num_actions)
        shared, own = math.sqrt(self.coupling), math.sqrt(1 - self.coupling)
        policy = (shared * table[0] + own * table[1:]).softmax(dim=1)
        prompts = torch.arange(self.num_prompts)
        p = policy[prompts, prompts]
        slope = -p[:, None] * policy
        slope[prompts, prompts] += p
        jacobian = policy.new_zeros(self.num_prompts, self.num_prompts + 1, self.num_actions)
        jacobian[:, 0] = shared * slope
        jacobian[prompts, prompts + 1] = own * slope
        return p, jacobian.flatten(1)
