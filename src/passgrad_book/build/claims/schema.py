"""``claims.yml``, read and checked: a field that is missing, misspelt or of another kind is an
error of one line that names the claim and the field.
"""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic import model_validator as validator

from passgrad.errors import UserError
from passgrad_book.build import paths

Verdict = Literal["reproduced", "corrected", "extended", "not reproduced", "needs a GPU"]

#: verdicts that a check stands behind
CHECKED: tuple[Verdict, ...] = ("reproduced", "corrected", "extended", "not reproduced")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """No unknown fields, no silent conversions of text into numbers, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Bounds(Strict):
    """Where a measured value may lie: ``value`` with ``tolerance``, or within bounds."""

    value: Number | None = None
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    why: Text

    @validator(mode="after")
    def _complete(self) -> Bounds:
        if (self.value is None) != (self.tolerance is None):
            raise ValueError("value and tolerance go together")
        if self.value is None and self.at_least is None and self.at_most is None:
            raise ValueError("needs value and tolerance, at_least or at_most")
        return self

    def holds(self, measured: float) -> bool:
        """Whether a measured value is as expected; never for one that is not finite."""
        if not math.isfinite(measured):
            return False
        if self.value is not None and self.tolerance is not None:
            # A number that was printed rounds either way at half a unit: rounding is no failure.
            slack = self.tolerance * (1 + 1e-9)
            if abs(measured - self.value) > slack:
                return False
        above = self.at_least is None or measured >= self.at_least
        return above and (self.at_most is None or measured <= self.at_most)

    def text(self) -> str:
        """Such as "0.86 ± 0.005", "≥ 0.93" or "0"."""
        parts = []
        if self.value is not None and self.tolerance is not None:
            spread = f" ± {self.tolerance:g}" if self.tolerance else ""
            parts.append(f"{self.value:g}{spread}")
        if self.at_least is not None and self.at_most is not None:
            parts.append(f"{self.at_least:g} to {self.at_most:g}")
        elif self.at_least is not None:
            parts.append(f"≥ {self.at_least:g}")
        elif self.at_most is not None:
            parts.append(f"≤ {self.at_most:g}")
        return ", ".join(parts)


class Expectation(Bounds):
    """One quantity of a claim, by the name that its check gives it."""

    quantity: Text
    meaning: str = ""
    rerun: Bounds | None = None
    """What holds after the command of the claim, where that is smaller than the stored run."""


class Quoted(Strict):
    """A number as it is printed elsewhere; nothing here measures it."""

    quantity: Text
    value: Number
    source: Text


class Derived(Strict):
    """Where the book has it: a chapter or page, and a statement by its label if it is one."""

    chapter: Text
    statement: str | None = None


class Claim(Strict):
    """One claim, C for the paper's and E for those of this project."""

    id: Annotated[str, StringConstraints(pattern=r"^[CE][1-9][0-9]*$")]
    statement: Text
    source: Text
    derived: Derived
    verdict: Verdict
    check: str | None = None
    expected: tuple[Expectation, ...] = ()
    quoted: tuple[Quoted, ...] = ()
    command: Text
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    hardware: Text
    reduced: str = ""
    """What the command leaves out of the run that is stored."""
    note: str = ""

    @validator(mode="after")
    def _consistent(self) -> Claim:
        if self.verdict == "needs a GPU":
            if self.check is not None or self.expected:
                raise ValueError('verdict: "needs a GPU" stands without check and expected')
            if not self.quoted:
                raise ValueError('quoted: "needs a GPU" quotes what is claimed')
            return self
        if self.check is None:
            raise ValueError(f'check: the verdict "{self.verdict}" needs one')
        if not self.expected:
            raise ValueError(f'expected: the verdict "{self.verdict}" needs a number')
        names = [one.quantity for one in self.expected]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"expected: {name} is there twice")
        return self

    @property
    def words(self) -> list[str]:
        """The command, split as a shell does."""
        return shlex.split(self.command)


class Row(Strict):
    """One row of a published table."""

    name: Text
    values: tuple[Number, ...]


class Context(Strict):
    """A table of another paper that bears on the claims: quoted, not claimed."""

    title: Text
    source: Text
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @validator(mode="after")
    def _rectangular(self) -> Context:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"rows: {row.name} has not one value a column")
        return self


class Claims(Strict):
    """The whole file."""

    paper: Text
    claims: tuple[Claim, ...]
    context: tuple[Context, ...] = ()

    @validator(mode="after")
    def _distinct(self) -> Claims:
        seen: set[str] = set()
        for one in self.claims:
            if one.id in seen:
                raise ValueError(f"claims: {one.id} is there twice")
            seen.add(one.id)
        return self

    def select(self, ids: list[str] | None) -> tuple[Claim, ...]:
        """The claims of these ids, all for none; UserError for an unknown one."""
        if not ids:
            return self.claims
        known = {one.id: one for one in self.claims}
        for name in ids:
            if name not in known:
                raise UserError(
                    f"no claim {name!r} in claims.yml; known are {next(iter(known))} "
                    f"to {list(known)[-1]}"
                )
        return tuple(known[name] for name in dict.fromkeys(ids))


def path() -> Path:
    """The file of the claims."""
    return paths.root() / "claims.yml"


def load(file: Path | None = None) -> Claims:
    """The claims of a file, by default of the project.

    :raises UserError: One line with the claim and the field, for a file that does not fit the
        schema.
    """
    file = file or path()
    if not file.is_file():
        raise UserError(f"{file.name} is missing: restore it with git")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise UserError(f"{file.name} is not YAML (line {line}); mend it") from None
    if not isinstance(content, dict):
        raise UserError(f"{file.name} must map paper, claims and context; mend it")
    try:
        return Claims.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{file.name}: {_first(error, content)}") from None


def _first(error: ValidationError, content: dict[str, Any]) -> str:
    """The first fault, with the id of its claim and the path of its field."""
    fault = error.errors()[0]
    where = list(fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = f" (got {fault['input']!r})" if isinstance(fault["input"], str | int | float) else ""
    names: list[str] = []
    here: Any = content
    for step in where:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            here = None
        if isinstance(step, int) and names:
            label = here.get("id") or here.get("quantity") if isinstance(here, dict) else None
            if names == ["claims"] and label:
                names = [str(label)]
            else:
                names[-1] += f"[{label or step}]"
        else:
            names.append(str(step))
    return f"{'.'.join(names)}: {message}{given}" if names else f"{message}{given}"
