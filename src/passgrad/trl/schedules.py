r"""Which order k of pass@k is ascended when.

A plan gives, for every step, the coefficients c_k of a mixture :math:`\sum_k c_k J_k` of pass@k.
One that adapts looks at the measured product :math:`\langle \nabla J_k, \nabla J_1 \rangle`: the
first change of pass@1 along the gradient of pass@k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

from passgrad.ascent.mixing import RunningGram
from passgrad.errors import UserError
from passgrad.objectives import Mixture, PassAtK


class Plan:
    """The coefficients of pass@k over training. A subclass overrides what it needs."""

    @property
    def orders(self) -> tuple[int, ...]:
        """Every k that may get a coefficient, ascending."""
        raise NotImplementedError

    @property
    def mixed(self) -> bool:
        """Whether orders are mixed or changed, which takes an unbiased estimator."""
        return len(self.orders) > 1

    @property
    def measured(self) -> int | None:
        """The order whose gradient is to be measured against that of pass@1; None for none."""
        return None

    @property
    def every(self) -> int:
        """A measurement every so many steps."""
        return 1

    def weights(self, progress: float) -> dict[int, float]:
        """The c_k at this share of the training, from 0 to 1."""
        raise NotImplementedError

    def observe(self, gram: RunningGram) -> None:
        """Take note of the measured products of (grad J_1, grad J_k), k = ``measured``."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""

    def describe(self) -> str:
        """A line for the records of a run."""
        raise NotImplementedError


class FixedK(Plan):
    """One order, or one mixture of them, throughout.

    :param k: An order, ``{order: coefficient}``, :class:`~passgrad.objectives.PassAtK`, or a
        :class:`~passgrad.objectives.Mixture` of them.
    """

    def __init__(self, k: int | Mapping[int, float] | PassAtK | Mixture) -> None:
        self._weights = _mixture(k)

    @property
    def orders(self) -> tuple[int, ...]:
        return tuple(sorted(self._weights))

    @property
    def mixed(self) -> bool:
        return list(self._weights.values()) != [1.0]

    def weights(self, progress: float) -> dict[int, float]:
        return dict(self._weights)

    def describe(self) -> str:
        return " + ".join(
            f"pass@{k}" if c == 1 else f"{c:g} pass@{k}" for k, c in sorted(self._weights.items())
        )


class AnnealedK(Plan):
    r"""k from ``start`` to ``end`` over the training, as from 8 to 1.

    The real number :math:`\kappa` moves along a geometric (or a straight) line and arrives after
    the share ``over`` of the training. Between two orders their objectives are mixed, so that the
    mean order is :math:`\kappa`:
    :math:`(1 - t) J_{\lfloor\kappa\rfloor} + t J_{\lceil\kappa\rceil}`
    with :math:`t = \kappa - \lfloor\kappa\rfloor`. With ``integers`` it is rounded instead.
    """

    def __init__(
        self,
        start: float = 8,
        end: float = 1,
        *,
        over: float = 1.0,
        shape: Literal["geometric", "linear"] = "geometric",
        integers: bool = False,
    ) -> None:
        for name, value in (("start", start), ("end", end)):
            if not isinstance(value, Real) or not (math.isfinite(value) and value >= 1):
                raise UserError(f"{name} must be a number of at least 1, got {value!r}")
        if not 0 < over <= 1:
            raise UserError(f"over must be a share of the training in (0, 1], got {over!r}")
        if shape not in ("geometric", "linear"):
            raise UserError(f"shape must be 'geometric' or 'linear', got {shape!r}")
        self.start, self.end, self.over = float(start), float(end), float(over)
        self.shape, self.integers = shape, integers

    @property
    def orders(self) -> tuple[int, ...]:
        low, high = sorted((self.start, self.end))
        return tuple(range(math.floor(low), math.ceil(high) + 1))

    def order(self, progress: float) -> float:
        """The real number between the orders."""
        share = min(max(progress / self.over, 0.0), 1.0)
        if self.shape == "linear":
            return (1 - share) * self.start + share * self.end
        return math.exp((1 - share) * math.log(self.start) + share * math.log(self.end))

    def weights(self, progress: float) -> dict[int, float]:
        order = self.order(progress)
        whole = round(order)
        if self.integers or abs(order - whole) < 1e-9:
            return {whole: 1.0}
        low = math.floor(order)
        return {low: low + 1 - order, low + 1: order - low}

    def describe(self) -> str:
        return f"pass@k, k from {self.start:g} to {self.end:g} ({self.shape})"


class AdaptiveK(Plan):
    r"""The largest k on a ladder whose gradient does not lower pass@1, as measured.

    Starts at the top. After ``patience`` measurements in a row of
    :math:`\langle \nabla J_k, \nabla J_1 \rangle \le 0` it goes down one rung. It goes up one after
    ``patience`` measurements in a row whose lower bound, at ``confidence``, is positive, but not
    within ``wait`` measurements of having come down: between the two conditions nothing moves. At
    k = 1 the product is a squared length, so that it tries the next rung from time to time.

    :param ladder: The rungs; by default powers of two up to ``k``, and ``k``.
    :param every: Steps between measurements.
    """

    def __init__(
        self,
        k: int = 8,
        *,
        ladder: Sequence[int] | None = None,
        every: int = 4,
        patience: int = 2,
        wait: int = 8,
        confidence: float = 0.9,
    ) -> None:
        top = count(k)
        rungs = {2**i for i in range(top.bit_length())} | {top} if ladder is None else set(ladder)
        self.ladder = tuple(sorted({count(one) for one in rungs}))
        RunningGram.check_confidence(confidence)
        self._every = count(every, "every")
        self.patience, self.wait = count(patience, "patience"), count(wait, "wait")
        self.confidence = confidence
        self._rung = len(self.ladder) - 1
        self._against = self._along = 0
        self._since_down = self.wait

    @property
    def k(self) -> int:
        """The order at present."""
        return self.ladder[self._rung]

    @property
    def orders(self) -> tuple[int, ...]:
        return self.ladder

    @property
    def measured(self) -> int | None:
        return self.k

    @property
    def every(self) -> int:
        return self._every

    def weights(self, progress: float) -> dict[int, float]:
        return {self.k: 1.0}

    def observe(self, gram: RunningGram) -> None:
        product = float(gram.mean[0, 1])
        bound = product - gram.quantile(self.confidence) * float(gram.error[0, 1])
        self._since_down += 1
        self._against = self._against + 1 if product <= 0 else 0
        self._along = self._along + 1 if bound > 0 else 0
        if self._against >= self.patience and self._rung > 0:
            self._rung -= 1
            self._since_down = 0
        elif (
            self._along >= self.patience
            and self._since_down >= self.wait
            and self._rung + 1 < len(self.ladder)
        ):
            self._rung += 1
        else:
            return
        self._against = self._along = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "rung": self._rung,
            "against": self._against,
            "along": self._along,
            "since_down": self._since_down,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rung, self._since_down = int(state["rung"]), int(state["since_down"])
        self._against, self._along = int(state["against"]), int(state["along"])

    def describe(self) -> str:
        return f"pass@k, k adapted on the ladder {', '.join(map(str, self.ladder))}"


class AfterSteps(Plan):
    r"""Pass@k for some steps, and then pass@k or a mixture, by the sign that was measured.

    A hard family whose success rate is near 0 has hardly a gradient at the start: its conflict with
    the rest begins when training has found it, so that the sign of
    :math:`\langle \nabla J_k, \nabla J_1 \rangle` may tell more after some steps than before.
    Once ``steps`` batches are measured their mean, in which later ones count more, decides for
    good: pass@k where it is above zero, and the mixture otherwise.

    :param mixture: The share of pass@1 in it.
    :param steps: Batches that are measured, each of them, before the decision.
    """

    def __init__(self, k: int = 8, *, steps: int = 10, mixture: float = 0.5) -> None:
        self.k, self.steps = count(k), count(steps, "steps")
        if self.k == 1:
            raise UserError("pass@1 has no conflict with itself: k must be at least 2")
        if not 0 < mixture <= 1:
            raise UserError(f"mixture is the share of pass@1, above 0 and up to 1; got {mixture!r}")
        self.mixture = float(mixture)
        self.decision: str | None = None

    @property
    def orders(self) -> tuple[int, ...]:
        return (1, self.k)

    @property
    def measured(self) -> int | None:
        return self.k if self.decision is None else None

    def weights(self, progress: float) -> dict[int, float]:
        share = self.mixture if self.decision == "mixture" else 0.0
        return {1: share, self.k: 1 - share} if share else {self.k: 1.0}

    def observe(self, gram: RunningGram) -> None:
        if self.decision is None and gram.count >= self.steps:
            self.decision = "pass@k" if float(gram.mean[0, 1]) > 0 else "mixture"

    def state_dict(self) -> dict[str, Any]:
        return {"decision": self.decision}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.decision = state["decision"]

    def describe(self) -> str:
        return (
            f"pass@{self.k} for {self.steps} steps, then pass@{self.k}, or with a share of "
            f"{self.mixture:g} of pass@1 where their product is not above 0"
        )


def as_plan(k: Any) -> Plan:
    """The plan that a trainer's ``k`` stands for: an order, a mixture, or a plan itself."""
    return k if isinstance(k, Plan) else FixedK(k)


def count(value: Any, name: str = "k") -> int:
    """A whole number of at least 1; raises UserError for anything else."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _mixture(k: Any) -> dict[int, float]:
    if isinstance(k, Mixture):
        pairs = list(zip(k.objectives, k.coefficients, strict=True))
    elif isinstance(k, PassAtK):
        pairs = [(k, 1.0)]
    elif isinstance(k, Mapping):
        if not k:
            raise UserError("the mixture over k is empty: name at least one order")
        mixture = {count(order): float(c) for order, c in k.items()}
        if not all(math.isfinite(c) for c in mixture.values()) or not any(mixture.values()):
            raise UserError(f"a mixture over k has finite coefficients, not all 0; got {k!r}")
        return mixture
    else:
        return {count(k): 1.0}
    made: dict[int, float] = {}
    for member, c in pairs:
        if not isinstance(member, PassAtK) or member.k != int(member.k):
            raise UserError(f"only pass@k of whole k can be trained, got {member.label}")
        made[int(member.k)] = made.get(int(member.k), 0.0) + c
    return made
