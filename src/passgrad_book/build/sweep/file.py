"""The file that describes a sweep: which notebooks, in which profiles, with which values, and where
they run.

.. code-block:: yaml

    runs:
      - notebook: toy        # or a list of notebooks
        profile: smoke          # or a list of profiles; cpu by default
        parameters: {seed: 1}   # the same for all runs of this entry
        grid:                   # every combination of these values
          k: [5, 10]
          step_size: [1.0, 5.0]
        list:                   # each of these together with each combination
          - {theta_bias: -2.0, theta_slope: -2.0}
    collect: [fig-toy-cosine]   # tables that go into the one table; all by default
    executor:
      kind: local               # or slurm
      jobs: 2                   # runs at a time
      minutes: 30               # after that a run is stopped
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from passgrad import plain_yaml
from passgrad.errors import UserError

ExecutorKind = Literal["local", "slurm"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Executor(_Strict):
    """Where runs are executed, and what each of them gets.

    ``kind``: processes of this machine, or jobs of Slurm. ``jobs``: runs at a time. ``minutes``,
    ``cpus``, ``gpus``, ``memory_gb``, ``nodes``: of one run. ``partition``, ``account``, ``qos``,
    ``setup`` (lines of the shell before the run) and ``options`` (further ones of sbatch) are for
    Slurm alone; a local run does not look at them, so that one file serves both places.
    """

    kind: ExecutorKind = "local"
    jobs: PositiveInt = 1
    minutes: PositiveInt = 24 * 60
    cpus: PositiveInt | None = None
    gpus: int = Field(default=0, ge=0)
    memory_gb: PositiveInt | None = None
    nodes: PositiveInt = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    setup: list[str] = Field(default_factory=list)
    options: dict[str, str | int | bool] = Field(default_factory=dict)


class Entry(_Strict):
    """Runs that belong together: each notebook in each profile, with each combination of values."""

    notebook: str | list[str]
    profile: str | list[str] = "cpu"
    parameters: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    cases: list[dict[str, Any]] | None = Field(default=None, alias="list")


class SweepFile(_Strict):
    """The whole file."""

    runs: list[Entry]
    collect: list[str] | None = None
    executor: Executor = Field(default_factory=Executor)


def read(path: Path | str) -> SweepFile:
    """The content of a sweep file.

    :raises UserError: One line with the file, the key and the remedy: a file that is missing or not
        YAML, an unknown key, a value of another type, no runs.
    """
    path = Path(path)
    try:
        content = plain_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or 'no reason given'}); "
            "give the path of a sweep file"
        ) from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path.name} is not text in UTF-8; give the path of a sweep file"
        ) from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise UserError(f"{path.name} is not YAML (line {line}); mend it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path.name}: the file must map keys to values; it needs the key runs")
    try:
        made = SweepFile.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path.name}: {_first(error)}") from None
    if not made.runs:
        raise UserError(f"{path.name}: runs: there is no run; add an entry with a notebook")
    return made


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, its key and the remedy."""
    found = error.errors(include_url=False, include_context=False)
    # Where a value may be of two types, pydantic names both and appends their names to the place.
    fault = found[0]
    place = [part for part in fault["loc"] if not (isinstance(part, str) and "[" in part)]
    if place and place[-1] in ("str", "int", "bool"):
        place = place[:-1]
    key = ".".join(str(part) for part in place)
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; known keys here: {', '.join(_known(place[:-1]))}"
    if fault["type"] == "missing":
        return f"{key}: missing; add it"
    given = repr(fault["input"])
    given = given if len(given) <= 40 else f"{given[:37]}..."
    wanted = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{key}: {wanted}, got {given}; change the value"


def _known(place: list[Any]) -> list[str]:
    models: Mapping[str, type[BaseModel]] = {"runs": Entry, "executor": Executor}
    model = models.get(str(place[0]), SweepFile) if place else SweepFile
    return [field.alias or name for name, field in model.model_fields.items()]
