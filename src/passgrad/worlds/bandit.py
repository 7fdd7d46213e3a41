r"""The contextual bandit of the paper (section 3.2): easy and hard prompts share two parameters.

A prompt is a label and a feature s; the policy sees :math:`\psi = (1, s)` and answers 1 with
probability :math:`\sigma(\theta \cdot \psi)`. The right answer is 0 on an easy prompt and 1 on a
hard one, so that with :math:`z = \sigma (1 - \sigma)`

.. math:: p = 1 - \sigma, \; \nabla p = -z \psi \text{ (easy)}, \qquad
          p = \sigma, \; \nabla p = z \psi \text{ (hard)}.

A policy that leans to answer 0 solves the easy prompts and fails the hard ones, and as long as the
features of the two kinds are close, whatever helps one kind harms the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.worlds.base import AnalyticWorld

_HALF_WIDTH = 9.0  # The normal mass beyond nine standard deviations is 2e-19.


class Bandit(AnalyticWorld):
    """A two-action bandit on given features and labels; theta = (bias, slope)."""

    num_parameters = 2

    features: Tensor
    """psi = (1, s), of shape (N, 2)."""
    signed_features: Tensor
    """u = -psi on easy prompts and psi on hard ones, of shape (N, 2): p = sigmoid(u . theta)."""

    def __init__(self, s: Tensor, hard: Tensor, masses: Tensor) -> None:
        self.features = torch.stack([torch.ones_like(s), s], dim=1)
        self.masses = masses
        self.groups = tuple("hard" if h else "easy" for h in hard)
        # The right answer enters by a sign alone.
        self.signed_features = torch.where(hard, 1.0, -1.0)[:, None] * self.features

    def success_and_jacobian(
        self, theta: Tensor | Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The rates p = sigmoid(u . theta) with the signed features u, and the rows p (1 - p) u."""
        logits = self.signed_features @ self.parameters(theta)
        p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
        return p, (p * q)[:, None] * self.signed_features


class TwoPointBandit(Bandit):
    """One easy prompt at s = -separation/2 and one hard prompt at s = +separation/2.

    ``hard_fraction`` is the mass of the hard prompt, in (0, 1). The paper's numbers belong to
    the defaults at theta = (-2, -2), which it does not print; they follow from the weights that
    it prints.

    :raises UserError: For a separation that is not finite or a fraction outside (0, 1).

    >>> import passgrad as pg
    >>> world = pg.TwoPointBandit()
    >>> world.groups, world.success((-2, -2))
    (('easy', 'hard'), tensor([0.8581, 0.0998], dtype=torch.float64))
    """

    def __init__(self, separation: float = 0.2, hard_fraction: float = 0.5) -> None:
        _check(separation, hard_fraction)
        super().__init__(
            s=torch.tensor([-separation / 2, separation / 2], dtype=torch.float64),
            hard=torch.tensor([False, True]),
            masses=torch.tensor([1 - hard_fraction, hard_fraction], dtype=torch.float64),
        )


class GaussianBandit(Bandit):
    r"""The population: s ~ N(-separation/2, 1) on easy prompts, N(+separation/2, 1) on hard ones.

    Expectations are taken by quadrature, not by sampling: the world's prompts are the nodes of a
    trapezoidal rule on the standardised feature in [-9, 9], ``num_nodes`` of them for each label,
    and their masses the label's probability times the node's normal weight. For integrands that
    are analytic in a strip around the real line, as all here are, the trapezoidal rule converges
    geometrically, and unlike Gauss-Hermite it does not spend its nodes far out in the tails.
    The default is exact to rounding for features of ordinary slope (:math:`|\theta_1|` up to about
    5).

    :raises UserError: For a fraction outside (0, 1) or fewer than 3 nodes.

    >>> import passgrad as pg
    >>> world = pg.GaussianBandit()
    >>> round(float(world.masses @ world.success((-2, -2))), 4)
    0.5324
    """

    def __init__(
        self, separation: float = 0.2, hard_fraction: float = 0.4, num_nodes: int = 257
    ) -> None:
        _check(separation, hard_fraction)
        if num_nodes < 3:
            raise UserError(f"num_nodes must be at least 3, got {num_nodes}")
        x = torch.linspace(-_HALF_WIDTH, _HALF_WIDTH, num_nodes, dtype=torch.float64)
        # Dividing by the sum makes the masses a law; the end points weigh 1e-18 and less, so that
        # halving them, as the rule says, would change nothing.
        weight = torch.softmax(-x.square() / 2, dim=0)
        super().__init__(
            s=torch.cat([x - separation / 2, x + separation / 2]),
            hard=torch.arange(2 * num_nodes) >= num_nodes,
            masses=torch.cat([(1 - hard_fraction) * weight, hard_fraction * weight]),
        )
        self.separation, self.hard_fraction = separation, hard_fraction

    def sample(self, num_easy: int, num_hard: int, *, seed: int) -> Bandit:
        """A bandit on features drawn from the population, so many of each kind.

        The masses keep the population's share of hard prompts whatever the two numbers are.
        Raises UserError for a number below 1.
        """
        if min(num_easy, num_hard) < 1:
            raise UserError(f"a sample needs prompts of both kinds, got {num_easy} and {num_hard}")
        generator = torch.Generator().manual_seed(seed)
        s = torch.randn(num_easy + num_hard, dtype=torch.float64, generator=generator)
        hard = torch.arange(len(s)) >= num_easy
        s += self.separation * (hard.double() - 0.5)
        masses = torch.full_like(s, (1 - self.hard_fraction) / num_easy)
        masses[hard] = self.hard_fraction / num_hard
        return Bandit(s, hard, masses)


def _check(separation: float, hard_fraction: float) -> None:
    if not math.isfinite(separation):
        raise UserError(f"separation must be a finite number, got {separation}")
    if not 0 < hard_fraction < 1:
        raise UserError(f"hard_fraction must lie strictly between 0 and 1, got {hard_fraction}")
