"""What is trained and how: the keys of the file that ``passgrad train`` reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from passgrad.errors import UserError
from passgrad.stats.intervals import Prompts, check_prompts

if TYPE_CHECKING:
    from passgrad.trl.schedules import Plan

Objective = Literal["pass@k", "pass@1", "mixture", "annealed", "after-steps", "conflict-free"]
#: the names of what can be ascended
OBJECTIVES: tuple[str, ...] = get_args(Objective)
# Keys that may change from one call to the next: they alter no step that was taken.
_FREE = ("steps", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run.

    :raises UserError: In one line, for a value that cannot be, and for two that do not go together.
    """

    model: str
    """The embedded model, a local folder, or a name on the Hugging Face hub."""
    prompts: str
    """A file of prompts or a task by its name, as ``passgrad measure`` takes."""
    held_out: str = "0.2"
    """Prompts that are measured and not trained on: a number, a share such as 0.2, or a file."""
    verifier: str = "exact"
    """For a file: what judges a completion."""
    stop: str | None = None
    """For a file: what ends an answer; by default the end tokens of the model do."""
    max_new_tokens: int | None = None
    """For a file: tokens after which a completion is cut off; 512 by default."""
    objective: Objective = "mixture"
    """pass@k, pass@1, a mixture of both, annealed from k to 1, after-steps or conflict-free."""
    k: int = 8
    """The order."""
    share: float = 0.5
    """Of pass@1 in a mixture, and in that of after-steps."""
    aggregator: str = "pcgrad"
    """Of conflict-free: pcgrad, constrained, mgda and others."""
    keep: float = 0.0
    """The share of the gain of pass@1 that constrained keeps; 0 keeps its level."""
    n: int = 16
    """Completions a prompt."""
    prompts_per_step: int = 8
    """Prompts a step."""
    steps: int = 200
    """Steps of the optimiser."""
    learning_rate: float = 1e-5
    """Of AdamW, constant behind the warm-up."""
    warmup: int = 0
    """Steps over which the learning rate rises from 0."""
    rank: int = 0
    """Of a LoRA adapter; 0 trains all weights."""
    targets: Sequence[str] | None = None
    """Layers that get an adapter, such as q_proj; all linear ones by default."""
    rows_at_once: int | None = None
    """Completions in one pass of the loss; all of a step by default."""
    eval_every: int = 20
    """Steps between measurements of the held-out prompts."""
    eval_samples: int | None = None
    """Completions of a held-out prompt; the larger of n and 2 k by default."""
    reading: Prompts = "new"
    """new: the held-out prompts stand for others like them; fixed: for themselves."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; eval_every by default."""
    seed: int = 0
    """Of the samples, of the order of prompts, of which are held out, and of an adapter."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UserError(
                f"objective is {self.objective!r}; it is one of {', '.join(OBJECTIVES)}"
            )
        for name in ("k", "n", "prompts_per_step", "steps", "eval_every"):
            _check_count(name, getattr(self, name), 1)
        for name in ("max_new_tokens", "rows_at_once", "eval_samples", "checkpoint_every"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), 1)
        for name in ("warmup", "rank", "seed"):
            _check_count(name, getattr(self, name), 0)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"learning_rate is {self.learning_rate}; give a positive number")
        if not 0 < self.share < 1:
            raise UserError(
                f"share is {self.share}; it is that of pass@1 in a mixture, above 0 and below 1"
            )
        check_prompts(self.reading)
        self._check_together()

    def _check_together(self) -> None:
        if self.k == 1 and self.objective != "pass@1":
            raise UserError(f"objective {self.objective} with k = 1; take a larger k, or pass@1")
        least = 2 if self.objective == "pass@1" else self.k + 1
        if self.n < least:
            raise UserError(
                f"n is {self.n}; draw at least {least} completions a prompt for {self.objective}"
                + (f" with k = {self.k}, better {2 * self.k}" if least > 2 else "")
            )
        if self.samples_held_out < self.k:
            raise UserError(
                f"eval_samples is {self.eval_samples}; pass@{self.k} takes at least {self.k}"
            )
        rows = self.n * self.prompts_per_step
        if self.rows_at_once is not None and rows % self.rows_at_once:
            raise UserError(
                f"rows_at_once is {self.rows_at_once}; give a divisor of n * prompts_per_step, "
                f"which is {rows}"
            )
        if self.keep and (self.objective, self.aggregator) != ("conflict-free", "constrained"):
            raise UserError(
                "keep is of the objective conflict-free with the aggregator constrained; take "
                "these, or leave it out"
            )
        if self.targets and not self.rank:
            raise UserError("targets are of an adapter, and rank is 0; give a rank such as 8")

    @property
    def samples_held_out(self) -> int:
        """Completions of a held-out prompt."""
        return self.eval_samples or max(self.n, 2 * self.k)

    @property
    def orders(self) -> tuple[int, ...]:
        """The orders that are measured."""
        return (1,) if self.k == 1 else (1, self.k)

    def plan(self) -> Plan:
        """What the trainer ascends.

        :raises UserError: For an unknown aggregator.
        """
        from passgrad.trl.conflict_free import ConflictFree
        from passgrad.trl.schedules import AfterSteps, AnnealedK, FixedK

        if self.objective == "pass@1":
            return FixedK(1)
        if self.objective == "pass@k":
            return FixedK(self.k)
        if self.objective == "mixture":
            return FixedK({1: self.share, self.k: 1 - self.share})
        if self.objective == "annealed":
            return AnnealedK(self.k, 1)
        if self.objective == "after-steps":
            return AfterSteps(self.k, mixture=self.share)
        return ConflictFree(self.k, self.aggregator, keep=self.keep)

    def settled(self) -> dict[str, Any]:
        """What a folder holds on to: all that makes the steps, as plain values.

        The number of steps may grow later, unless what is ascended follows from it.
        """
        given = asdict(self)
        given["targets"] = list(self.targets) if self.targets else None
        for name in _FREE:
            if name != "steps" or self.objective != "annealed":
                del given[name]
        return given


def names() -> list[str]:
    """The keys, in the order of the page."""
    return [one.name for one in fields(Settings)]


def held_out_of(text: str, number: int) -> int | Path:
    """How many of so many prompts are held out, or the file of them.

    :raises UserError: For neither of a number, a share and a file, and where too few prompts are
        held out or left.
    """
    path = Path(text)
    if path.is_file():
        return path
    try:
        value = float(text)
    except ValueError:
        raise UserError(
            f"held_out is {text!r}, which is no file; give a number of prompts, a share such as "
            "0.2, or a file of prompts"
        ) from None
    if not (math.isfinite(value) and value > 0) or (value >= 1 and value != int(value)):
        raise UserError(f"held_out is {text}; give a number of prompts, or a share such as 0.2")
    count = round(value * number) if value < 1 else int(value)
    if not 2 <= count < number:
        raise UserError(
            f"held_out {text} of {number} prompts is {count}; hold out at least 2, and leave some "
            "to train on, or name a file of prompts"
        )
    return count


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} is {value!r}; give a whole number of at least {least}")
