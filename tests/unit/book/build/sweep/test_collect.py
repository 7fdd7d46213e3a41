"""One table of all runs."""

import json

import pandas as pd
import pytest

from passgrad.errors import UserError
from passgrad_book.build.sweep.collect import collect
from passgrad_book.build.sweep.runs import SweepRun


def run(tmp_path, name, given, tables):
    folder = tmp_path / name
    folder.mkdir()
    figures = []
    for table, frame in tables.items():
        frame.to_parquet(folder / f"{table}.parquet")
        figures.append({"name": table, "file": f"{table}.parquet"})
    (folder / "01_quick.json").write_text(json.dumps({"results": [], "figures": figures}))
    return SweepRun("01_quick.py", "cpu", given, name, "d"), folder


def test_parameters_are_columns(tmp_path):
    one = run(
        tmp_path, "r1", {"a": 1, "ks": [1, 2]}, {"t": pd.DataFrame({"a": [5, 6], "x": [0, 1]})}
    )
    two = run(
        tmp_path,
        "r2",
        {"a": 2, "b": 0.5},
        {"t": pd.DataFrame({"x": [2]}), "u": pd.DataFrame({"x": ["c"]})},
    )
    empty = run(tmp_path, "r3", {"a": 3}, {})
    made = collect([one, two, empty])
    assert list(made.columns) == ["run", "notebook", "profile", "a", "ks", "b", "table", "a_", "x"]
    assert made["run"].tolist() == ["r1", "r1", "r2", "r2", "r3"]
    assert made["a"].tolist() == [1, 1, 2, 2, 3]
    assert made["ks"][0] == "[1, 2]"
    assert made["a_"][0] == 5
    assert made["x"].tolist()[:4] == ["0", "1", "2", "c"]
    made.to_parquet(tmp_path / "t.parquet")
    only = collect([one, two], ["u"])
    assert only["x"].tolist()[-1] == "c"
    assert len(only) == 2
    with pytest.raises(UserError, match="collect: no run has a table 'v'; tables: t, u"):
        collect([one, two], ["v"])
    assert len(collect([])) == 0
