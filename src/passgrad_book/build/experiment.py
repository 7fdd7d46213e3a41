"""Experiments: the functions whose tables are stored, each with a version and a witness.

An experiment is a function in :mod:`passgrad_book.experiments` of keyword parameters that returns
tables. Its result is stored under its name, its version, its parameters and its inputs. The version
is raised by hand when its numbers are meant to change. The witness is a small run of the same
function: code that has not been seen before has to give its numbers (see
:mod:`passgrad_book.build.witness`).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad import provenance
from passgrad.errors import UserError
from passgrad_book.build import paths, results, sources

if TYPE_CHECKING:
    import pandas as pd

    Tables = Mapping[str, pd.DataFrame]
    Label = str | Callable[[Mapping[str, Any]], str]
    Inputs = Callable[[Mapping[str, Any]], Mapping[str, str | None]]

#: name of an experiment -> the module of passgrad_book that defines a function of that name
HOMES = {
    "two_conventions": "experiments.two_conventions",
    "qwen_conflict": "experiments.second_model",
    "qwen_ascents": "experiments.second_model",
    "word_problems": "experiments.word_problems",
    "coverage_bandit": "experiments.estimating.stored",
    "coverage_language": "experiments.estimating.stored",
    "compared_methods": "experiments.estimating.stored",
    "right_signs": "experiments.estimating.decisions",
    "conflict_life": "experiments.life.stored",
    "training_pass_at_k": "experiments.training",
    "training_study": "experiments.study.stored",
    "study_in_trl": "experiments.study.in_trl",
    "frontier_language": "experiments.conflict_free.stored",
    "metrics_language": "experiments.conflict_free.stored",
    "math_conflict": "experiments.mathematics.stored",
    "math_chat": "experiments.mathematics.stored",
    "regime_map": "experiments.mathematics.stored",
    "real_rates": "experiments.real.stored",
    "real_run": "experiments.real.stored",
    "published_runs": "experiments.real.stored",
    "log_coverage": "experiments.real.stored",
    "cost_passes": "experiments.cost.stored",
    "cost_machine": "experiments.cost.stored",
}


@dataclass(frozen=True)
class Tolerance:
    """Largest gap of a column, as a share of its largest absolute value, and why it is allowed."""

    tolerance: float
    reason: str


EXACT = Tolerance(0.0, "a count, a label or a verdict")
DOUBLE = Tolerance(1e-9, "float64 arithmetic")
SINGLE = Tolerance(2e-4, "float32 passes; kernels differ between processors")


@dataclass(frozen=True)
class Witness:
    """A small deterministic run of an experiment.

    ``run`` takes ``kept``, tables that are stored with the witness (completions that are judged and
    scored again, say), and returns the tables that are compared. ``keep`` makes ``kept`` once.
    ``replaces`` are modules whose work the replay stands in for: engines that draw. ``columns`` are
    tolerances of single columns, ``table.column``; ``tolerance`` is that of all
    other columns of floating-point numbers.
    """

    run: Callable[[Tables], Tables]
    keep: Callable[[], Tables] | None
    parameters: dict[str, Any]
    tolerance: Tolerance
    columns: dict[str, Tolerance] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()


class Experiment:
    """A versioned function of keyword parameters that returns tables.

    :param function: Computes the tables. All its parameters are keywords; they make the key, the
        seed among them.
    :param version: Raised by hand when the numbers are meant to change.
    :param label: Names a result by its parameters: a format string such as ``"seed-{seed}"``, or a
        function.
    :param inputs: Parameters -> what is read: the SHA-256 of a file or of a model, the version of a
        verifier; None for what is not at hand.
    :param files: Parameters that are paths of files. A path is no part of the key; the SHA-256 of
        its file is an input under the name of the parameter, None for an empty path.
    :param timing: The tables are times: nothing can witness them.
    """

    def __init__(
        self,
        function: Callable[..., Tables],
        *,
        version: int,
        label: Label,
        inputs: Inputs | None = None,
        files: Sequence[str] = (),
        timing: bool = False,
    ) -> None:
        self.function, self.version, self.label, self.timing = function, version, label, timing
        self.files = tuple(files)
        self.name, self.module = function.__name__, function.__module__
        self.__doc__ = function.__doc__
        self._inputs = inputs
        self.witness: Witness | None = None
        #: what two full runs may differ by: column, table or "*" -> tolerance (see ``audit``)
        self.full: dict[str, Tolerance] = {"*": SINGLE}

    def __call__(self, **parameters: Any) -> Tables:
        """The tables, computed here and kept nowhere."""
        return self.function(**self.bind(parameters))

    def bind(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters with their defaults; UserError for one that is missing or unknown."""
        try:
            bound = inspect.signature(self.function).bind(**parameters)
        except TypeError as error:
            known = ", ".join(inspect.signature(self.function).parameters)
            raise UserError(f"experiment {self.name}: {error}; its parameters: {known}") from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def key(self, parameters: Mapping[str, Any]) -> results.Key:
        """What the result of these parameters is stored under."""
        bound = self.bind(parameters)
        inputs = dict(self._inputs(bound)) if self._inputs else {}
        for name in self.files:
            path = bound.pop(name)
            if path and not Path(path).is_file():
                raise UserError(f"experiment {self.name}: {name}: there is no file {path}")
            inputs[name] = provenance.file_sha256(Path(path)) if path else None
        label = self.label(bound) if callable(self.label) else self.label.format(**bound)
        label = re.sub(r"[, ]+", "-", label.replace("@", "-at-"))
        return results.Key(self.name, self.version, label, bound, inputs, (self.module,))

    def result(
        self, *, recompute: bool = False, profile: str | None = None, **parameters: Any
    ) -> results.Result:
        """The stored result of these parameters, or a computed one: :func:`results.obtain`."""
        bound = self.bind(parameters)
        return results.obtain(
            self.key(bound), lambda: self.function(**bound), profile=profile, recompute=recompute
        )

    def witnessed(
        self,
        *,
        tolerance: Tolerance,
        columns: Mapping[str, Tolerance] | None = None,
        **parameters: Any,
    ) -> None:
        """Declare the witness: the function itself, with these small parameters. A parameter that
        is a function is called when the witness runs.
        """

        def run(kept: Tables) -> Tables:
            return self(**{name: v() if callable(v) else v for name, v in parameters.items()})

        shown = {name: v.__name__ if callable(v) else v for name, v in parameters.items()}
        self.witness = Witness(run, None, shown, tolerance, dict(columns or {}))

    def replayed(
        self,
        run: Callable[[Tables], Tables],
        keep: Callable[[], Tables] | None = None,
        *,
        tolerance: Tolerance,
        columns: Mapping[str, Tolerance] | None = None,
        replaces: Sequence[str] = (),
    ) -> None:
        """Declare a witness that replays what is stored: ``run`` takes what ``keep`` made once."""
        self.witness = Witness(run, keep, {}, tolerance, dict(columns or {}), tuple(replaces))


def experiment(
    *,
    version: int,
    label: Label,
    inputs: Inputs | None = None,
    files: Sequence[str] = (),
    timing: bool = False,
) -> Callable[[Callable[..., Tables]], Experiment]:
    """Make an :class:`Experiment` of a function; its parameters are described there."""

    def declare(function: Callable[..., Tables]) -> Experiment:
        return Experiment(
            function, version=version, label=label, inputs=inputs, files=files, timing=timing
        )

    return declare


def find(name: str) -> Experiment:
    """The experiment of that name; UserError when there is none."""
    if name not in HOMES:
        raise UserError(f"there is no experiment {name!r}; there are: {', '.join(HOMES)}")
    found = getattr(importlib.import_module(f"passgrad_book.{HOMES[name]}"), name)
    if not isinstance(found, Experiment):
        raise TypeError(f"{found!r} is no experiment")
    return found


def model_input(parameters: Mapping[str, Any]) -> dict[str, str | None]:
    """The weights of the parameter ``model``, as an input."""
    from passgrad.lm.models import weights_sha256

    return {"model": weights_sha256(parameters["model"])}


def scratch(experiment: Experiment, *parameters: Any) -> Path:
    """A folder for what a long computation keeps until it is done: of this code and these
    parameters.
    """
    digest = sources.digest([experiment.module])[:12]
    name = "-".join([digest, *(str(value) for value in parameters)])
    return paths.build() / "experiments" / experiment.name / name
