"""``passgrad verify`` on what ships, and on copies of it that were changed."""

import json
import time

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from passgrad.cli import app
from passgrad_book.build import results, witness
from passgrad_book.build.claims import load, measured, render
from passgrad_book.build.claims.verify import files, pages, witnesses
from passgrad_book.build.witness import Attested


def call(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def attested(monkeypatch):
    """The code is taken as known: no witness runs. Returns the failures that are to be found."""
    failures = []
    monkeypatch.setattr(
        witness, "attest_all", lambda say: [Attested("toy", False, failure=x) for x in failures]
    )
    return failures


def test_everything_that_ships_is_in_order_within_two_minutes(processes, attested):
    """Without the witnesses, which have tests of their own; all claims are measured."""
    start = time.perf_counter()
    done = call("verify")
    seconds = time.perf_counter() - start
    failed = [line for line in done.output.splitlines() if line.startswith("[fail]")]
    assert failed == []
    assert done.exit_code == 0
    assert "Everything is as expected." in done.output
    assert seconds < 120
    for one in load().claims:
        assert any(line.startswith(f"{one.id} ") for line in done.output.splitlines())


def test_other_numbers_of_a_witness_end_it(project, attested):
    attested += [None, "experiment toy: the code of today gives another curve.y"]
    part = found(project)["witnesses"]
    assert part.detail == "2 experiments, 0 run"
    assert part.failures == ("experiment toy: the code of today gives another curve.y",)


def test_a_damaged_log_is_a_failure_of_its_part(project):
    with (project / "data" / "attestations.jsonl").open("a") as stream:
        stream.write("{\n")
    (line,) = witnesses().failures
    assert line.startswith("data/attestations.jsonl, line ")


def found(project):
    """The parts of verify by their names."""
    return {part.name: part for part in files()}


def test_the_generated_pages_are_up_to_date():
    assert render.outdated(load()) == []


def change(project, name, edit):
    """Edit a table of a result by hand, the hashes left as they are."""
    path = project / "data" / "results" / name
    frame = pd.read_parquet(path)
    edit(frame)
    frame.to_parquet(path, index=False, compression="zstd")
    return f"data/results/{name}"


def test_a_value_edited_by_hand_ends_it_and_is_named(project, attested):
    def edit(frame):
        frame.loc[4, "cosine"] = 0.5

    name = change(project, "two_conventions/cpu/seed-0.conflict.parquet", edit)
    done = call("verify", "E1")
    assert done.exit_code == 1
    assert f"[fail] E1: {name} was changed by hand: restore it with git" in done.output
    assert "not reproduced" in done.output
    parts = found(project)
    assert [line for line in parts["files"].failures if "two_conventions" in line] == [
        f"{name} was changed by hand: restore it with git, or run make results"
    ]
    assert all("\n" not in line for part in parts.values() for line in part.failures)


def test_a_value_that_was_stored_wrong_breaks_an_identity(project, attested):
    """With the hashes made to fit, it is the columns that give it away."""
    stored = results.load("two_conventions", "seed-0")
    tables = {name: frame.copy() for name, frame in stored.tables.items()}
    tables["conflict"].loc[4, "inner_product"] *= 1.05
    path = project / "data/results/two_conventions/cpu/seed-0.json"
    entry = {key: value for key, value in stored.record.items() if key != "tables"}
    results._write(path, entry, tables)
    parts = found(project)
    assert not any("two_conventions" in line for line in parts["files"].failures)
    lines = [line for line in parts["identities"].failures if "seed-0" in line]
    assert any("inner_product recomputed from the stored columns" in line for line in lines)


def test_a_wrong_expectation_ends_it(project):
    path = project / "claims.yml"
    content = yaml.safe_load(path.read_text())
    content["claims"][2]["expected"][0]["value"] = -0.5
    path.write_text(yaml.safe_dump(content))
    done = call("verify", "C3")
    assert done.exit_code == 1
    assert "[fail] C3: cosine is -0.7746, expected -0.5 ± 0.005" in done.output
    assert "not reproduced" in done.output
    assert "1 not as expected." in done.output


def test_measured_values_edited_by_hand_are_named(project):
    path = project / "data" / "claims.json"
    content = json.loads(path.read_text())
    content["claims"]["C3"]["measured"]["cosine"] = -0.77
    path.write_text(json.dumps(content))
    (line,) = pages(load()).failures
    assert line.startswith("data/claims.json was changed by hand")


def test_a_page_edited_by_hand_is_named_and_written_again(project):
    page = project / "book" / "claims.md"
    render.write(load())
    page.write_text(page.read_text().replace("-0.7746", "-0.7700"))
    assert render.outdated(load()) == ["book/claims.md"]
    (line,) = pages(load()).failures
    assert "book/claims.md is not what claims.yml" in line
    render.write(load())
    assert render.outdated(load()) == []


def test_write_keeps_the_values_of_claims_that_were_not_measured(project):
    before = measured.read()
    assert call("verify", "C3", "--write").exit_code == 0
    assert measured.read() == before


def test_a_faulty_record_and_one_of_another_version_are_named(project, attested):
    path = project / "data/results/word_problems/cpu/seed-0.json"
    entry = json.loads(path.read_text())

    def lines(change):
        path.write_text(json.dumps(entry | change))
        return [x for x in found(project)["records"].failures if "word_problems/cpu/seed-0" in x]

    assert "is of version 7 of word_problems, which is at version" in lines({"version": 7})[0]
    assert "passgrad run language_sampled" in lines({"version": 7})[0]
    assert "names no notebook that made it" in lines({"notebook": None})[0]


def test_an_unknown_claim_is_one_line(project, capsys):
    from passgrad.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["verify", "C99"])
    assert stop.value.code == 1
    assert "passgrad: no claim 'C99' in claims.yml; known are C1 to E" in capsys.readouterr().err
