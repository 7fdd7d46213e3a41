"""A claim against its check: what was measured, what was expected, and the verdict of the two."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from passgrad.errors import UserError
from passgrad_book.build.claims.schema import Bounds, Claim, Expectation
from passgrad_book.experiments import checks


def number(value: float) -> str:
    """Four significant digits, whole numbers as they are."""
    if not math.isfinite(value):
        return str(value)
    if (value == int(value) or abs(value) >= 1e4) and abs(value) < 1e6:
        return f"{round(value)}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Outcome:
    """One claim, measured."""

    claim: Claim
    measured: dict[str, float] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    """One line each."""
    seconds: float = 0.0
    rerun: bool = False

    @property
    def verdict(self) -> str:
        """The claim's own, or "not reproduced" where a measured value is not as expected."""
        return "not reproduced" if self.failures else self.claim.verdict

    @property
    def shown(self) -> tuple[str, str, str]:
        """Quantity, expected and measured of the row in the closing table: the first that failed,
        else the first.
        """
        for one in self.claim.expected:
            if any(line.startswith(f"{self.claim.id}: {one.quantity} ") for line in self.failures):
                return self._row(one)
        return self._row(self.claim.expected[0]) if self.claim.expected else ("", "", "")

    def _row(self, one: Expectation) -> tuple[str, str, str]:
        value = self.measured.get(one.quantity)
        return (
            one.quantity,
            bounds(one, self.rerun).text(),
            "" if value is None else number(value),
        )


def bounds(one: Expectation, rerun: bool) -> Bounds:
    """What is expected: after the claim's command, where that is smaller than the stored run."""
    return one.rerun if rerun and one.rerun is not None else one


def measure(claim: Claim, *, rerun: bool = False) -> Outcome:
    """Run the check of a claim and compare; an error of the check is a failure of the claim."""
    if claim.check is None:
        return Outcome(claim)
    start = time.perf_counter()
    try:
        measured = {name: float(value) for name, value in checks.find(claim.check)().items()}
    except UserError as error:
        return Outcome(claim, {}, (f"{claim.id}: {error}",), time.perf_counter() - start, rerun)
    except Exception as error:
        # One claim that cannot be measured does not end the others.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        line = f"{claim.id}: the check {claim.check} stopped: {reason}"
        return Outcome(claim, {}, (line,), time.perf_counter() - start, rerun)
    seconds = time.perf_counter() - start
    return Outcome(claim, measured, tuple(compare(claim, measured, rerun)), seconds, rerun)


def compare(claim: Claim, measured: dict[str, float], rerun: bool = False) -> Iterable[str]:
    """One line for each quantity that is not as expected."""
    for one in claim.expected:
        wanted = bounds(one, rerun)
        if one.quantity not in measured:
            yield (
                f"{claim.id}: {one.quantity} is not measured by {claim.check}, which gives "
                + ", ".join(measured)
            )
        elif not wanted.holds(measured[one.quantity]):
            yield (
                f"{claim.id}: {one.quantity} is {number(measured[one.quantity])}, expected "
                f"{wanted.text()} ({wanted.why})"
            )
