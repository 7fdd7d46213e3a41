"""One table of the results of all runs, with their parameters as columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.errors import UserError
from passgrad_book.build.sweep.runs import SweepRun

if TYPE_CHECKING:
    import pandas as pd

#: columns before those of the parameters
LEAD = ("run", "notebook", "profile")


def collect(
    runs: Sequence[tuple[SweepRun, Path]], only: Sequence[str] | None = None
) -> pd.DataFrame:
    """The rows of the tables of these runs, one below the other.

    Columns: run, notebook, profile, each parameter that the sweep names, ``table``, then those of
    the tables. A column of a table that has the name of a parameter, or of one of the first, gets
    ``_`` after it.

    :param runs: Runs that are done, with their folders.
    :param only: Names of tables, ``EXPERIMENT.RESULT.TABLE`` or that of a figure; all by default.
    :raises UserError: For a name of a table that no run has.
    """
    import pandas as pd

    parameters = list(dict.fromkeys(key for run, _ in runs for key in run.given))
    reserved = {*LEAD, *parameters, "table"}
    parts, seen = [], set()
    for run, folder in runs:
        lead = dict(zip(LEAD, (run.name, Path(run.notebook).stem, run.profile), strict=True))
        values = {key: _cell(run.given.get(key)) for key in parameters}
        found = False
        for name, file in tables_of(run, folder).items():
            seen.add(name)
            if only is not None and name not in only:
                continue
            found = True
            table = pd.read_parquet(folder / file)
            table.columns = [f"{c}_" if c in reserved else str(c) for c in table.columns]
            head = pd.DataFrame([lead | values | {"table": name}] * len(table), index=table.index)
            parts.append(pd.concat([head, table], axis=1))
        if not found:  # the run is in the table all the same
            parts.append(pd.DataFrame([lead | values]))
    unknown = sorted(set(only or ()) - seen)
    if unknown and runs:
        known = ", ".join(sorted(seen)) or "none"
        raise UserError(f"collect: no run has a table {unknown[0]!r}; tables: {known}")
    if not parts:
        return pd.DataFrame(columns=[*LEAD, *parameters, "table"])
    whole = pd.concat(parts, ignore_index=True)
    for column in whole.columns:
        if whole[column].dtype == object:
            whole[column] = _one_type(whole[column])
    return whole


def tables_of(run: SweepRun, folder: Path) -> dict[str, str]:
    """Name -> file of the tables of a run that is done."""
    entry = json.loads(run.record(folder).read_text(encoding="utf-8"))
    found = {
        f"{one['experiment']}.{one['name']}.{table}": facts["file"]
        for one in entry["results"]
        for table, facts in one["tables"].items()
    }
    return found | {one["name"]: one["file"] for one in entry["figures"]}


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value


def _one_type(column: pd.Series) -> pd.Series:
    """Text where a column mixes numbers and text: a parquet column has one type."""
    kinds = {type(value) for value in column.dropna()}
    if len(kinds) > 1 and str in kinds:
        return column.map(lambda value: value if value is None or value != value else str(value))
    return column.infer_objects()
