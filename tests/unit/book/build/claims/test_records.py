import json

import pandas as pd
import pytest

from passgrad_book.build import results
from passgrad_book.build.claims import records
from passgrad_book.build.experiment import HOMES


@pytest.fixture
def kept(toy, checkout, problems, monkeypatch):
    """A result of the notebook ``first`` in a checkout of its own."""
    (checkout / "notebooks" / "first.py").write_text("# %%\n")
    monkeypatch.setenv(results.NOTEBOOK_VARIABLE, "notebooks/first.py")
    toy.doubled.result(size=3, path=str(problems), recompute=True)
    name = "results/doubled/cpu/size-3-seed-0.json"
    return name, results.records()[name]


def test_what_obtain_writes_is_sound_and_would_be_read(kept):
    name, entry = kept
    assert records.faults(name, entry) == []
    assert records.manifest_faults({name: entry}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notebook": None}, "names no notebook that made it: recompute it with its notebook"),
        ({"notebook": "notebooks/second.py"}, "made by notebooks/second.py, which is not there"),
        ({"digest": "ab"}, "digest: string should match"),
        ({"time": "today"}, "time: string should match"),
        ({"wall_seconds": -1}, "wall_seconds: input should be greater"),
        ({"schema": 1}, "schema: input should be 2"),
        ({"tables": {}}, "tables: dictionary should have at least 1 item"),
        ({"colour": "red"}, "colour: extra inputs"),
        ({"profile": "gpu"}, "calls itself results/doubled/gpu/size-3-seed-0.json"),
    ],
)
def test_a_faulty_record_is_named_with_the_field(kept, change, message):
    name, entry = kept
    (line,) = records.faults(name, entry | change)
    assert line.startswith(f"data/{name}")
    assert message in line


def test_a_missing_field_is_named(kept):
    name, entry = kept
    del entry["versions"]
    assert "versions: field required" in records.faults(name, entry)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "is of version 2 of doubled, which is at version 1: passgrad run first"),
        ({"inputs": {"model": "cd" * 32, "path": None}}, "has other inputs than doubled reads now"),
        ({"parameters": {"size": 3, "colour": 4}}, "unexpected keyword argument 'colour'"),
        ({"parameters": {"size": 3, "seed": 4}}, "is called size-3-seed-4 by doubled now"),
    ],
)
def test_a_record_that_its_experiment_would_not_read_is_named(kept, change, message):
    name, entry = kept
    (line,) = records.faults(name, entry | change)
    assert line.startswith(f"data/{name}")
    assert message in line


def test_a_result_of_no_experiment_is_named(kept, monkeypatch):
    name, entry = kept
    del HOMES["doubled"]  # the fixture puts back what there was
    line = records.faults(name, entry)[-1]
    assert "there is no experiment 'doubled'" in line


def test_the_command_that_mends_it(kept):
    _, entry = kept
    command = "passgrad run first --profile cpu -p recompute=true"
    assert records.recompute(entry) == command
    assert records.recompute(entry | {"notebook": None}) == "recompute it with its notebook"


def test_a_manifest_that_says_otherwise(kept):
    name, entry = kept
    assert records.manifest_faults({name: entry | {"wall_seconds": 7}}) == [
        f"data/manifest.json does not fit the record data/{name}: passgrad verify --write"
    ]
    content = json.loads(results.manifest_path().read_text())
    del content["results"]
    results.manifest_path().write_text(json.dumps(content))
    assert "says nothing of the results" in records.manifest_faults({name: entry})[0]
    results.refresh_manifest()
    assert records.manifest_faults({name: entry}) == []


def test_intervals_of_a_coverage_are_recomputed():
    table = pd.DataFrame({"coverage": [0.95], "low": [0.887], "high": [0.984]})
    entry = {"parameters": {"replications": 100}}
    assert records.identities({"coverage": table}, entry)["interval"] < 1e-3
    wrong = table.assign(low=0.92)
    assert records.identities({"coverage": wrong}, entry)["interval"] > 0.02
    assert records.identities({"coverage": table}, {}) == {}
