r"""A number of a stored result, by its address: what the role ``{result}`` of the book resolves.

.. code-block:: text

   two_conventions/cpu/seed-0:conflict[k=10].cosine|.2f     a cell of a table
   two_conventions/cpu/seed-0:parameters.num_prompts        a field of the record
   claims:E1.threshold|.2f                                  a measured value of a claim
   two_conventions/cpu/seed-*:conflict[k=10].cosine|median|.2f     over results of these names
   frontier/cpu/seed-*:path[step=4].p - path[step=0].p|min|.2f     of a difference of two cells

The format is Python's, for one number; ``%`` works. Rows are chosen by columns, such as
``[k=10, group=all]``, and must be exactly one. Over several results: median, min, max, count,
and negative, the number of values below zero.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from passgrad.errors import UserError
from passgrad_book.build import paths, results
from passgrad_book.build.claims import measured

_ADDRESS = re.compile(
    r"^(?P<where>[^:\s]+):(?P<what>[^|]+?)(\|(?P<over>median|min|max|count|negative))?(\|(?P<format>[^|]+))?$"
)
_CELL = re.compile(r"^(?P<table>[\w-]+)\[(?P<rows>[^\]]*)\]\.(?P<column>[\w-]+)$")
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class Quantity:
    """A number, how it is shown, and the file that holds it."""

    value: Any
    text: str
    file: Path
    sha256: str

    @property
    def origin(self) -> str:
        """Path and the start of the hash, for the reader."""
        # not resolved: a checkout may be made of links
        return f"{self.file.relative_to(paths.root()).as_posix()}, sha256 {self.sha256[:12]}"


def resolve(address: str) -> Quantity:
    """The number behind an address.

    :raises UserError: One line that names the file, table, column, row or format that is not there.
    """
    match = _ADDRESS.match(address.strip())
    if match is None:
        raise UserError(
            f"{address!r} is no address of a result: write "
            "EXPERIMENT/PROFILE/NAME:TABLE[column=value].COLUMN|FORMAT"
        )
    where, what, form = match["where"], match["what"].strip(), match["format"]
    if where == "claims":
        value, file = _claim(what), measured.path()
    elif match["over"]:
        value, file = _over(where, what, match["over"])
    else:
        value, file = _stored(where, what)
    return Quantity(value, _shown(value, form, address), file, _sha256(file))


def _sha256(file: Path) -> str:
    from passgrad import provenance

    return provenance.file_sha256(file)


def _claim(what: str) -> float:
    claim, _, quantity = what.partition(".")
    known = measured.read()
    if claim not in known:
        raise UserError(
            f"no measured value of the claim {claim!r} in data/claims.json; run passgrad verify "
            "--write"
        )
    return _field(known[claim]["measured"], [quantity], f"the claim {claim}")


_OVER: dict[str, Callable[[list[float]], float]] = {
    "median": statistics.median,
    "min": min,
    "max": max,
    "count": len,
    "negative": lambda values: sum(value < 0 for value in values),
}


def _over(pattern: str, what: str, over: str) -> tuple[float, Path]:
    """A summary over all shipped results of these names, of a cell or of a difference of two."""
    files = sorted(paths.results().glob(f"{pattern}.json"))
    if not files:
        raise UserError(f"no stored result is named {pattern!r}")
    cells = what.split(" - ")
    if len(cells) > 2:
        raise UserError(f"{what!r} is neither a cell nor a difference of two")
    values = []
    for file in files:
        where = file.relative_to(paths.results()).with_suffix("").as_posix()
        first, *second = (float(_stored(where, cell.strip())[0]) for cell in cells)
        values.append(first - sum(second))
    return _OVER[over](values), files[0]


def _stored(where: str, what: str) -> tuple[Any, Path]:
    parts = where.split("/")
    if len(parts) != 3:
        raise UserError(f"{where!r} names no result: write EXPERIMENT/PROFILE/NAME")
    experiment, profile, name = parts
    found = results.load(experiment, name, profile=profile)
    record = paths.results() / experiment / profile / f"{name}.json"
    cell = _CELL.match(what)
    if cell is None:
        if "[" in what:
            raise UserError(f"{what!r} is no cell of {where}: write TABLE[column=value].COLUMN")
        return _field(found.record, what.split("."), f"the record {where}"), record
    table = cell["table"]
    value = _cell(found[table], cell["rows"], cell["column"], f"{where}:{table}")
    return value, record.with_name(found.record["tables"][table]["file"])


def _field(content: Mapping[str, Any], steps: list[str], name: str) -> Any:
    here: Any = content
    for step in steps:
        if not isinstance(here, Mapping) or step not in here:
            known = ", ".join(map(str, here)) if isinstance(here, Mapping) else "nothing below it"
            raise UserError(f"{name} has no {step!r}; it has: {known}")
        here = here[step]
    return here


def _cell(frame: pd.DataFrame, rows: str, column: str, name: str) -> Any:
    chosen = pd.Series(True, index=frame.index)
    for condition in filter(None, (part.strip() for part in rows.split(","))):
        key, equals, wanted = (part.strip() for part in condition.partition("="))
        if not equals or key not in frame:
            raise UserError(f"{name} has no column {key!r}; it has: {', '.join(frame.columns)}")
        chosen &= _equal(frame[key], wanted)
    if column not in frame:
        raise UserError(f"{name} has no column {column!r}; it has: {', '.join(frame.columns)}")
    if int(chosen.sum()) != 1:
        raise UserError(f"{name}[{rows}] chooses {int(chosen.sum())} rows; an address needs one")
    return frame.loc[chosen, column].item()


def _equal(values: pd.Series, wanted: str) -> pd.Series:
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return values.astype(str) == wanted
    try:
        return values == float(wanted)
    except ValueError:
        return pd.Series(False, index=values.index)


def _shown(value: Any, form: str | None, address: str) -> str:
    if isinstance(value, Mapping | list) or value is None:
        raise UserError(f"{address!r} is not one value")
    if form is None:
        return str(value)
    try:
        text = format(value, form.strip())
    except (TypeError, ValueError):
        raise UserError(f"{value!r} cannot be shown as {form!r} ({address})") from None
    mantissa, power, exponent = text.partition("e")
    if power and exponent.lstrip("+-").isdigit():
        text = f"{mantissa} × 10{str(int(exponent)).translate(_RAISED)}"
    # A true minus sign, as in the formulas around it.
    return text.replace("-", "−", 1) if text.startswith("-") else text
