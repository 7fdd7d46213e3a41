"""The parameters of a notebook: a cell of literals, then a profile, then the command line.

The defaults in the cell are the ``cpu`` profile. A parameter that the cell does not have is an
error.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from passgrad import plain_yaml
from passgrad.errors import UserError
from passgrad_book.build import paths
from passgrad_book.build.notebooks.source import find, split
from passgrad_book.build.notebooks.typed import value_of

Profile = Literal["smoke", "cpu", "gpu"]


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: name, annotation, default and the comment that explains
    it.
    """

    name: str
    annotation: str
    default: Any
    comment: str


def _parameter_cell(notebook: Any) -> str | None:
    cells = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(cells) > 1:
        raise UserError(f"the notebook has {len(cells)} cells tagged parameters; keep one")
    return cells[0] if cells else None


def _comments(source: str) -> dict[int, str]:
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = token.string.lstrip("# ").strip()
    return found


def parameters_of(path: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook, in the order of its cell.

    :raises UserError: When the cell holds anything but assignments of literals.
    """
    path = find(path)
    source = _parameter_cell(split(path.read_text(encoding="utf-8")))
    if source is None:
        return {}
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    target: ast.expr
    value: ast.expr | None
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.AnnAssign):
            target, value, annotation = (
                statement.target,
                statement.value,
                ast.unparse(statement.annotation),
            )
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value, annotation = statement.targets[0], statement.value, ""
        else:
            raise UserError(
                f"{path.name}: the parameters cell holds {ast.unparse(statement)!r}; "
                "it may only assign literals to names"
            )
        try:
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError
            default = ast.literal_eval(value)
        except ValueError:
            raise UserError(
                f"{path.name}: the parameter {ast.unparse(target)} is not set to a literal; "
                "compute derived values in a later cell"
            ) from None
        comment = comments.get(statement.end_lineno or statement.lineno, "")
        found[target.id] = Parameter(
            target.id, annotation or type(default).__name__, default, comment
        )
    return found


def _fit(name: str, value: Any, parameter: Parameter) -> Any:
    """``value`` in the type of the parameter, or a UserError."""
    default = parameter.default
    wanted = parameter.annotation

    def refuse() -> UserError:
        return UserError(
            f"the parameter {name} is {wanted} (default {default!r}), got {value!r}; give a value "
            f"of that type"
        )

    if value is None:
        if default is None or "None" in wanted:
            return value
        raise refuse()
    if default is None:
        return value
    if isinstance(default, bool) or isinstance(value, bool):
        if isinstance(default, bool) and isinstance(value, bool):
            return value
        raise refuse()
    if isinstance(default, float):
        if isinstance(value, int | float):
            return float(value)
        raise refuse()
    if isinstance(default, list | tuple):
        if not isinstance(value, list | tuple):
            raise refuse()
        items = list(value)
        if default:
            kinds = (int, float) if isinstance(default[0], float) else (type(default[0]),)
            if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in items):
                raise refuse()
            if isinstance(default[0], float):
                items = [float(item) for item in items]
        return items if isinstance(default, list) else tuple(items)
    if not isinstance(value, type(default)):
        raise refuse()
    return value


def parse_value(text: Any, parameter: Parameter) -> Any:
    """The value that ``-p name=text``, or a tree of a file of parameters, gives to a parameter.

    :raises UserError: For a text that is not of the declared type.
    """
    return value_of(text, parameter.name, parameter.annotation, parameter.default)


def profile_values(profile: str | None, stem: str) -> dict[str, Any]:
    """Values that a profile gives to a notebook; empty for None and for notebooks that it does not
    name.
    """
    if profile is None:
        return {}
    path = paths.profiles() / f"{profile}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in paths.profiles().glob("*.yml"))) or "none"
        raise UserError(f"no profile {profile!r}; known profiles: {known}")
    try:
        content = plain_yaml.load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise UserError(f"{paths.relative(path)} is not YAML (line {line}); mend it") from None
    values = content.get(stem) or {}
    if not isinstance(values, dict):
        raise UserError(f"{paths.relative(path)}: the entry {stem} must map parameters to values")
    return values


def resolve(
    path: Path | str, profile: str | None = None, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The value of every parameter of a notebook: defaults, then the profile, then ``parameters``.

    :raises UserError: For a parameter that the notebook does not have (the known ones are listed)
        and for a value of another type.
    """
    path = find(path)
    known = parameters_of(path)
    values = {name: parameter.default for name, parameter in known.items()}
    for origin, given in (
        (f"the profile {profile} sets", profile_values(profile, path.stem)),
        ("there is", dict(parameters or {})),
    ):
        for name, value in given.items():
            if name not in known:
                lead = (
                    f"{origin} an unknown parameter"
                    if origin != "there is"
                    else "unknown parameter"
                )
                raise UserError(
                    f"{lead} {name!r} of {path.name}; known parameters: "
                    f"{', '.join(known) or 'none'}"
                )
            values[name] = _fit(name, value, known[name])
    return values
