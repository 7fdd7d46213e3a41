"""The options of :func:`passgrad.measure`, under the headings that a user thinks in.

Each group is a frozen dataclass that checks itself when it is made. Every field is also a keyword
of ``measure`` and an option of ``passgrad measure``: ``measure(..., samples=32)`` is
``measure(..., drawing=Drawing(samples=32))``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from passgrad.errors import UserError
from passgrad.estimators import get_estimator
from passgrad.lm.distributed import check_device
from passgrad.lm.logprobs import DEFAULT_TOKEN_BUDGET
from passgrad.measurement.step import StepSize
from passgrad.orders import Orders
from passgrad.progress import Progress
from passgrad.rollouts.logged import Logged
from passgrad.rollouts.sampling import Engine, check_engine
from passgrad.stats.binomial import check_level
from passgrad.stats.intervals import Prompts, check_prompts
from passgrad.tasks.verifiers import Verifier

#: what a model is computed in
Dtype = Literal["float32", "bfloat16"]
#: where a completion is cut off if nothing else is said
DEFAULT_MAX_NEW_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Where completions come from: drawn from the model, or drawn elsewhere before.

    :raises UserError: For a count below 1, an unknown engine, and an address without the engine
        "server" or that engine without an address.
    """

    samples: int = 64
    """n, completions a prompt; with ``rollouts`` it is theirs."""
    engine: Engine = "auto"
    """ "vllm", "transformers", "server", or the first of these that runs; "server" where
    ``base_url`` is given."""
    base_url: str | None = None
    """Of an OpenAI-compatible vLLM server that serves the model."""
    rollouts: str | Path | Sequence[str | Path] | None = None
    """Completions drawn elsewhere (:mod:`passgrad.rollouts.foreign_logs`), from this model: a file,
    several, a folder, a pattern."""
    stop: str | None = None
    """What ends a completion, for a file and for prompts; None is the model's end tokens."""
    end_tokens: Sequence[str] | None = None
    """The tokens that end a completion, in place of those that the model's files declare; each text
    is one token."""
    max_new_tokens: int | None = None
    """Where it is cut off otherwise, for a file and for prompts, None being 512; one that lacks its
    ``stop`` is wrong. With ``rollouts`` where theirs were, None being unknown."""
    seed: int = 0
    """Of the completions and of their halves."""

    def __post_init__(self) -> None:
        _check_count("samples", self.samples)
        if self.max_new_tokens is not None:
            _check_count("max_new_tokens", self.max_new_tokens)
        if isinstance(self.end_tokens, str):
            object.__setattr__(self, "end_tokens", (self.end_tokens,))
        if self.end_tokens and self.stop is not None:
            raise UserError("stop and end_tokens are both given; an answer ends in one way")
        object.__setattr__(self, "engine", check_engine(self.engine, self.base_url))

    @property
    def limit(self) -> int:
        """``max_new_tokens`` of completions that are drawn."""
        return DEFAULT_MAX_NEW_TOKENS if self.max_new_tokens is None else self.max_new_tokens


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a completion is judged; for a file and for prompts, since a task has a verifier.

    :raises UserError: For a verifier of no known form, and limits that are not positive.
    """

    verifier: str | Callable[[str, str], Any] = "exact"
    """A name or a function, as for :class:`passgrad.tasks.verifiers.Verifier`."""
    think: str | None = None
    """Where the answer begins in a completion that thinks first, such as ``</think>``: what stands
    behind its last occurrence is judged. A completion without it is wrong."""
    verifier_seconds: float = 5.0
    """What a verdict may take; a longer one counts as wrong, and is reported."""
    verifier_memory: int = 1024
    """MiB that a verifier may take; beyond it the verdict is wrong."""

    def __post_init__(self) -> None:
        if self.think is not None and not self.think.strip():
            raise UserError("think is empty; give the mark that ends thoughts, such as '</think>'")
        self.judge()

    def judge(self) -> Verifier:
        """The verifier; its process starts at the first verdict."""
        return Verifier(
            self.verifier, seconds=self.verifier_seconds, memory_mib=self.verifier_memory
        )


@dataclass(frozen=True, kw_only=True)
class Estimating:
    """What is estimated, and how intervals are read.

    :raises UserError: For orders that are no whole numbers of at least 1, another reading than the
        two, an unknown estimator, and a level outside (0, 1).
    """

    ks: int | Iterable[int] | None = None
    """Orders with intervals, kept as :class:`passgrad.orders.Orders`; None is powers of two up to
    n / 2."""
    reading: Prompts = "new"
    """Whether the prompts stand for others like them ("new") or for themselves ("fixed")."""
    estimator: str = "pkpo-loo1"
    """Of the gradients of pass@k; a biased one is refused when the measurement is planned."""
    level: float = 0.95
    """Confidence of the intervals and of the band."""
    parts: bool = True
    """Whether the product is split by layer and group, at the order with the most negative one; one
    more pass."""
    adam: str | Path | None = None
    """A safetensors file with Adam's second moments
    (:func:`passgrad.measurement.metric.read_adam_metric`): the parts in its metric too."""

    def __post_init__(self) -> None:
        if self.ks is not None:
            object.__setattr__(self, "ks", Orders.of(self.ks))
        check_prompts(self.reading)
        get_estimator(self.estimator)
        check_level(self.level)


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """The step whose effect is predicted, along the gradient of the order with the most negative
    product among those with samples enough for a direction.

    :raises UserError: For a size in no known unit, or not positive.
    """

    step_size: StepSize | str = "points=1"
    """How long it is; text goes through :meth:`passgrad.measurement.step.StepSize.parse`."""
    verify_step: bool = False
    """Take the step, and draw as many completions again before and after it."""

    def __post_init__(self) -> None:
        if not isinstance(self.step_size, StepSize):
            object.__setattr__(self, "step_size", StepSize.parse(str(self.step_size)))

    @property
    def size(self) -> StepSize:
        """``step_size``, which is no text any more."""
        assert isinstance(self.step_size, StepSize)
        return self.step_size


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where and how it is computed. Only ``dtype`` changes numbers by more than their last digits.

    :raises UserError: For a token budget below 1, another dtype, and no known device.
    """

    token_budget: int = DEFAULT_TOKEN_BUDGET
    """Tokens of a packed row; less takes less memory."""
    resume: bool = False
    """Go on with what the folder holds; completions and passes that are there are not made
    again."""
    progress: Progress | None = None
    """Told what is being done."""
    dtype: Dtype = "float32"
    """Of the weights and of the arithmetic, in drawing too. Gradients are added up in float32."""
    device: str | None = None
    """ "cpu", "cuda" or "cuda:1"; None is a GPU where there is one. Under torchrun each process has
    a GPU of its own."""
    shard: bool = False
    """Spread weights, gradient and direction over the processes of torchrun."""

    def __post_init__(self) -> None:
        _check_count("token_budget", self.token_budget)
        if self.dtype not in get_args(Dtype):
            raise UserError(f"unknown dtype {self.dtype!r}; give {' or '.join(get_args(Dtype))}")
        check_device(self.device)


@dataclass(frozen=True)
class Options:
    """All groups; ``step`` is None where no step is predicted."""

    drawing: Drawing
    judging: Judging
    estimating: Estimating
    step: Stepping | None
    running: Running
    logged: Logged = field(default_factory=Logged)

    @classmethod
    def sort(
        cls,
        flat: Mapping[str, Any],
        drawing: Drawing | None = None,
        judging: Judging | None = None,
        estimating: Estimating | None = None,
        step: Stepping | StepSize | bool | None = True,
        running: Running | None = None,
        logged: Logged | None = None,
    ) -> Options:
        """The groups that are given, and the others from the keywords that are fields of theirs.

        :raises UserError: For a keyword that is no field, one whose group is given too, and a group
            of another type.
        """
        own: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
        for name, value in flat.items():
            if name not in _OWNER:
                raise UserError(_unknown(name))
            own[_OWNER[name]][name] = value
        if isinstance(step, StepSize):
            step = Stepping(step_size=step)
        if not step:
            check_no_step(**own["step"])
        return cls(
            _group("drawing", drawing, own),
            _group("judging", judging, own),
            _group("estimating", estimating, own),
            _group("step", None if step is True else step, own) if step else None,
            _group("running", running, own),
            _group("logged", logged, own),
        )


_GROUPS: dict[str, type] = {
    "drawing": Drawing,
    "judging": Judging,
    "estimating": Estimating,
    "step": Stepping,
    "running": Running,
    "logged": Logged,
}
_OWNER = {part.name: group for group, kind in _GROUPS.items() for part in fields(kind)}


def _group(name: str, given: Any, flat: Mapping[str, Mapping[str, Any]]) -> Any:
    """One group, from an object or from keywords."""
    kind = _GROUPS[name]
    if given is None:
        return kind(**flat[name])
    if not isinstance(given, kind):
        raise UserError(f"{name} is {given!r}; give {name}={kind.__name__}(...)")
    if flat[name]:
        keyword = next(iter(flat[name]))
        raise UserError(
            f"{keyword} is given by itself and {name} as a group: "
            f"write {name}={kind.__name__}({keyword}=...)"
        )
    return given


def check_no_step(step_size: StepSize | str = "points=1", verify_step: bool = False) -> None:
    """Raise a :class:`UserError` for a step that is left out and described."""
    described = (("verify_step", verify_step), ("step_size", step_size != "points=1"))
    for name, is_given in described:
        if is_given:
            raise UserError(f"{both(name)} does not apply: --no-step (step=False) leaves it out")


def both(name: str) -> str:
    """An option as the command and as Python spell it."""
    return f"--{name.replace('_', '-')} ({name}=)"


def _unknown(name: str) -> str:
    names = [*_GROUPS, *_OWNER]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"measure has no option {name!r}: did you mean {close[0]!r}?"
    return f"measure has no option {name!r}; the options are {', '.join(names)}"


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name} is {value!r}; give a whole number of at least 1")
