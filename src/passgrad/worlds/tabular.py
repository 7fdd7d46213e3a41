"""A tabular softmax policy: one logit vector a prompt, nothing shared between prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.worlds.base import AnalyticWorld


class TabularSoftmax(AnalyticWorld):
    r"""p(x) = softmax(theta[x])[correct[x]], with theta of ``num_prompts * num_actions`` entries.

    The gradients of two prompts have no entry in common, so the kernel is diagonal, the agreement
    is :math:`a(x) = D(x) \|\nabla p(x)\|^2 \ge 0`, and no pass@k gradient can conflict with the
    pass@1 gradient: the negative control of every measurement.

    ``correct`` holds the right action of each prompt (default: action 0), ``masses`` the prompt
    law (default: uniform), ``groups`` one label a prompt.

    :raises UserError: Where they do not fit.

    >>> import passgrad as pg
    >>> pg.conflict(pg.TabularSoftmax(2), (0, 1, 2, 0), ks=(1, 8)).cosine
    tensor([1.0000, 0.8821], dtype=torch.float64)
    """

    def __init__(
        self,
        num_prompts: int,
        num_actions: int = 2,
        *,
        correct: Sequence[int] | None = None,
        masses: Sequence[float] | Tensor | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        if num_prompts < 1 or num_actions < 2:
            raise UserError(
                "a tabular world needs at least 1 prompt and 2 actions, "
                f"got {num_prompts} and {num_actions}"
            )
        self.num_actions = num_actions
        self.num_parameters = num_prompts * num_actions
        self.correct = torch.tensor([0] * num_prompts if correct is None else list(correct))
        self.groups = ("all",) * num_prompts if groups is None else tuple(groups)
        self.masses = torch.full((num_prompts,), 1 / num_prompts, dtype=torch.float64)
        if masses is not None:
            self.masses = torch.as_tensor(masses, dtype=torch.float64)
        for name in ("correct", "groups", "masses"):
            if len(getattr(self, name)) != num_prompts:
                raise UserError(f"{name} must have one entry for each of {num_prompts} prompts")
        if not ((self.correct >= 0) & (self.correct < num_actions)).all():
            raise UserError(f"correct must hold actions from 0 to {num_actions - 1}")
        if not ((self.masses >= 0).all() and abs(float(self.masses.sum()) - 1) < 1e-9):
            raise UserError("masses must be non-negative and sum to one")

    def success_and_jacobian(
        self, theta: Tensor | Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """p(x): (N,), and the block-diagonal jacobian: (N, N * num_actions)."""
        policy = self.parameters(theta).view(-1, self.num_actions).softmax(dim=1)
        prompts = torch.arange(self.num_prompts)
        p = policy[prompts, self.correct]
        # d p / d logits = p (e_correct - policy), in the block that belongs to the prompt.
        blocks = -p[:, None] * policy
        blocks[prompts, self.correct] += p
        jacobian = policy.new_zeros(self.num_prompts, self.num_prompts, self.num_actions)
        jacobian[prompts, prompts] = blocks
        return p, jacobian.view(self.num_prompts, -1)
