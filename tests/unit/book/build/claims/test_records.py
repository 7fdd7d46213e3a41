import json

import pandas as pd
import pytest

from passgrad_book.build import results
from passgrad_book.build.claims import records

FRAME = pd.DataFrame({"k": [1.0, 2.0]})


@pytest.fixture
def kept(checkout, monkeypatch):
    """A result of the notebook 01 in a checkout of its own."""
    (checkout / "notebooks" / "01_one.py").write_text('# %%\nresults.cached("one", "a")\n')
    monkeypatch.setenv(results.NOTEBOOK_VARIABLE, "notebooks/01_one.py")
    results.cached(
        "one", "a", parameters={"n": 1}, modules=["passgrad.metrics"], seed=0, recompute=True,
        compute=lambda: {"table": FRAME},
    )  # fmt: skip
    return "results/one/cpu/a.json", results.records()["results/one/cpu/a.json"]


def test_what_cached_writes_is_sound_and_of_this_code(kept):
    name, entry = kept
    assert records.faults(name, entry) == []
    assert records.stale(entry) is None
    assert records.manifest_faults({name: entry}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notebook": None}, "names no notebook that made it: passgrad run 01_one"),
        ({"notebook": "notebooks/02_two.py"}, "made by notebooks/02_two.py, which is not there"),
        ({"digest": "ab"}, "digest: string should match"),
        ({"time": "today"}, "time: string should match"),
        ({"wall_seconds": -1}, "wall_seconds: input should be greater"),
        ({"schema": 2}, "schema: input should be 1"),
        ({"tables": {}}, "tables: dictionary should have at least 1 item"),
        ({"colour": "red"}, "colour: extra inputs"),
        ({"experiment": "two"}, "calls itself results/two/cpu/a.json"),
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


def test_a_stale_result_names_the_modules_that_changed(kept):
    _, entry = kept
    sources = entry["sources"] | {"passgrad.errors": "0" * 12}
    old = entry | {"digest": "0" * 64, "sources": sources}
    assert records.stale(old) == "changed since: errors"


def test_a_stale_result_without_sources_asks_git(kept):
    _, entry = kept
    old = entry | {"digest": "0" * 64, "sources": None, "commit": None}
    assert "does not say which" in records.stale(old)
    assert "gone" in records.stale(entry | {"modules": ["passgrad.nothing"]})


def test_the_command_that_mends_it(kept):
    _, entry = kept
    command = "passgrad run 01_one --profile cpu -p recompute=true"
    assert records.recompute(entry) == command
    assert records.recompute(entry | {"notebook": None}) == command
    other = entry | {"notebook": None, "experiment": "three"}
    assert records.recompute(other) == "recompute it with its notebook"


def test_a_manifest_that_says_otherwise(kept):
    name, entry = kept
    assert records.manifest_faults({name: entry | {"seed": 7}}) == [
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
