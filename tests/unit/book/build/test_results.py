import dataclasses
import json

import pandas as pd
import pytest

from passgrad.errors import UserError
from passgrad_book.build import results

FRAME = pd.DataFrame({"prompt": ["a", "b"], "p": [0.25, 0.75], "n": [3, 4]})


class Counter:
    """A computation that counts how often it runs."""

    def __init__(self, value=0.25):
        self.calls = 0
        self.value = value

    def __call__(self):
        self.calls += 1
        return {"prompts": FRAME.assign(p=self.value), "curve": FRAME[["n"]]}


KEY = results.Key(
    "two_conventions", 1, "seed-0", {"k": 10, "ks": (1, 2), "seed": 0},
    {"model": "ab" * 32, "problems": None}, ["passgrad.metrics"],
)  # fmt: skip


def get(compute, *, profile=None, recompute=False, **changes):
    key = dataclasses.replace(KEY, **changes)
    return results.obtain(key, compute, profile=profile, recompute=recompute)


def files(checkout, base="data/results"):
    folder = checkout / base
    return sorted(p.relative_to(checkout).as_posix() for p in folder.rglob("*") if p.is_file())


def test_asked_for_results_are_kept_with_the_project(checkout):
    made = get(Counter(), recompute=True)
    assert made.origin == "computed"
    assert files(checkout) == [
        "data/results/two_conventions/cpu/seed-0.curve.parquet",
        "data/results/two_conventions/cpu/seed-0.json",
        "data/results/two_conventions/cpu/seed-0.prompts.parquet",
    ]
    compute = Counter()
    read = get(compute)
    assert compute.calls == 0
    assert read.origin == "stored"
    pd.testing.assert_frame_equal(read["prompts"], FRAME.assign(p=0.25))
    assert read.record["version"] == 1
    assert read.record["parameters"] == {"k": 10, "ks": [1, 2], "seed": 0}
    assert read.record["inputs"] == {"model": "ab" * 32, "problems": None}
    assert read.record["wall_seconds"] >= 0
    assert results.verify() == []


def test_other_results_are_kept_in_the_build_folder_and_read_again(checkout):
    compute = Counter()
    assert get(compute).origin == "computed"
    assert get(compute).origin == "computed"
    assert compute.calls == 1
    assert files(checkout) == []
    assert len(files(checkout, "_build/results")) == 3
    assert results.manifest() == {}


OTHER_KEYS = [
    {"version": 2},
    {"parameters": {"k": 11, "ks": (1, 2), "seed": 0}},
    {"parameters": {"k": 10, "ks": (1, 3), "seed": 0}},
    {"parameters": {"k": 10, "ks": (1, 2), "seed": 1}},
    {"parameters": {"k": 10, "ks": (1, 2)}},
    {"parameters": {"k": 10, "ks": (1, 2), "seed": 0, "more": None}},
    {"inputs": {"model": "cd" * 32, "problems": None}},
    {"inputs": {"model": "ab" * 32, "problems": "ef" * 32}},
    {"inputs": {"model": "ab" * 32}},
    {"inputs": {"model": "ab" * 32, "problems": None, "verifier": None}},
]


@pytest.mark.parametrize("change", [*OTHER_KEYS, {"profile": "smoke"}, {"name": "seed-1"}])
def test_a_result_that_does_not_fit_is_computed_and_what_ships_is_left_alone(checkout, change):
    get(Counter(), recompute=True)
    before = {name: (checkout / name).read_bytes() for name in files(checkout)}
    compute = Counter(0.5)
    made = get(compute, **change)
    assert compute.calls == 1
    assert made.origin == "computed"
    assert made["prompts"]["p"].tolist() == [0.5, 0.5]
    assert {name: (checkout / name).read_bytes() for name in files(checkout)} == before


@pytest.mark.parametrize("change", OTHER_KEYS)
def test_a_key_fits_its_own_record_alone(change):
    entry = {"version": 1, "parameters": {"k": 10, "ks": [1, 2], "seed": 0}, "inputs": KEY.inputs}
    assert KEY.fits(entry)
    assert not dataclasses.replace(KEY, **change).fits(entry)


def test_an_input_that_is_not_at_hand_is_not_compared(checkout):
    """Without the model in the cache its results can be read all the same."""
    get(Counter(), recompute=True)
    compute = Counter()
    read = get(compute, inputs={"model": None, "problems": None})
    assert (compute.calls, read.origin) == (0, "stored")


def test_the_code_matters_for_what_was_computed_here_and_not_for_what_ships(checkout, monkeypatch):
    get(Counter(), recompute=True)
    local = Counter()
    get(local, name="seed-1")
    monkeypatch.setattr(results.sources, "digest", lambda modules: "ef" * 32)
    shipped = Counter()
    assert get(shipped).origin == "stored"
    get(local, name="seed-1")
    get(local, name="seed-1")
    assert (shipped.calls, local.calls) == (0, 2)


@pytest.mark.parametrize("commit", ["0" * 40 + "-dirty", None])
def test_nothing_is_stored_from_code_that_is_not_committed(checkout, monkeypatch, commit):
    monkeypatch.setattr("passgrad.provenance.git_commit", lambda: commit)
    compute = Counter()
    with pytest.raises(UserError, match="from a commit alone, and src or notebooks hold changes"):
        get(compute, recompute=True)
    assert compute.calls == 0
    assert files(checkout, "data") == []
    assert get(compute).origin == "computed"
    # In a folder that is named for it everything can be computed.
    monkeypatch.setenv(results.RESULTS_VARIABLE, str(checkout / "_build" / "again"))
    assert get(compute, recompute=True).origin == "computed"
    assert files(checkout, "data") == []


def test_profile_is_that_of_the_notebook(checkout, monkeypatch):
    monkeypatch.setenv("PASSGRAD_PROFILE", "smoke")
    assert get(Counter()).record["profile"] == "smoke"


@pytest.mark.parametrize("suffix", ["json", "prompts.parquet", "curve.parquet"])
def test_a_file_that_was_edited_by_hand_is_named(checkout, suffix):
    get(Counter(), recompute=True)
    path = checkout / "data/results/two_conventions/cpu" / f"seed-0.{suffix}"
    path.write_bytes(path.read_bytes().replace(b"2026", b"2025") + b" ")
    with pytest.raises(
        results.DamagedResult,
        match=f"data/results/two_conventions/cpu/seed-0.{suffix} was changed by hand",
    ):
        get(Counter())
    assert [p for p in results.verify() if f"seed-0.{suffix}" in p]
    # and recomputing mends it
    get(Counter(), recompute=True)
    assert results.verify() == []
    assert get(Counter()).origin == "stored"


def test_a_table_that_is_missing_is_named(checkout):
    get(Counter(), recompute=True)
    (checkout / "data/results/two_conventions/cpu/seed-0.curve.parquet").unlink()
    with pytest.raises(results.DamagedResult, match=r"seed-0.curve.parquet is missing"):
        get(Counter())
    assert len(results.verify()) == 1


def test_a_damaged_local_result_is_made_again(checkout):
    get(Counter())
    path = checkout / "_build/results/two_conventions/cpu/seed-0.json"
    path.write_text("{")
    compute = Counter()
    get(compute)
    assert compute.calls == 1
    json.loads(path.read_text())


def test_a_file_that_nobody_listed_is_reported(checkout):
    get(Counter(), recompute=True)
    (checkout / "data/results/stray.json").write_text("{}")
    assert [p for p in results.verify() if "stray.json is not in" in p]


def test_tables_that_are_gone_leave_no_file(checkout):
    get(Counter(), recompute=True)
    get(lambda: {"prompts": FRAME}, recompute=True)
    assert [f for f in files(checkout) if "curve" in f] == []
    assert results.verify() == []


def test_a_computation_that_fails_leaves_nothing(checkout):
    def fail():
        raise RuntimeError("out of luck")

    for recompute in (False, True):
        with pytest.raises(RuntimeError, match="out of luck"):
            get(fail, recompute=recompute)
    assert files(checkout) == []
    assert files(checkout, "_build/results") == []


def test_the_page_says_where_a_result_comes_from(checkout):
    made = get(Counter(), recompute=True)
    assert "computed here, as asked" in made._repr_markdown_()
    line = get(Counter())._repr_markdown_()
    assert "`two_conventions/seed-0` (cpu profile): read from the results that ship" in line
    assert "version 1, model `abababababab`" in line
    assert made.record["time"][:10] in line
    assert "\n" not in line
    assert (
        "no stored result has these parameters" in get(Counter(), profile="smoke")._repr_markdown_()
    )


def test_load_needs_no_key(checkout):
    get(Counter(), recompute=True)
    assert results.load("two_conventions", "seed-0")["curve"]["n"].tolist() == [3, 4]
    with pytest.raises(UserError, match="no stored result two_conventions/seed-1"):
        results.load("two_conventions", "seed-1")


def test_unknown_table_lists_the_known_ones(checkout):
    with pytest.raises(
        UserError, match="no table 'rollouts' in this result; it has: curve, prompts"
    ):
        get(Counter())["rollouts"]


@pytest.mark.parametrize("bad", [float("nan"), {1, 2}, pd.DataFrame()])
def test_parameters_must_be_plain(checkout, bad):
    with pytest.raises(UserError, match="plain JSON values"):
        get(Counter(), parameters={"k": bad})


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b"])
def test_names_cannot_leave_the_folder(checkout, name):
    with pytest.raises(UserError, match="cannot name a result"):
        results.obtain(results.Key(name, 1, "x", {}), Counter())


def test_what_ships_is_as_the_manifest_says():
    assert results.verify() == []


def test_a_folder_of_its_own_stands_for_both_places(checkout, monkeypatch):
    get(Counter(), recompute=True)
    before = {name: (checkout / name).read_bytes() for name in files(checkout, "data")}
    monkeypatch.setenv(results.RESULTS_VARIABLE, str(checkout / "_build" / "again"))
    compute = Counter(0.5)
    for recompute, calls in ((False, 1), (False, 1), (True, 2)):
        made = get(compute, recompute=recompute)
        assert (made.origin, compute.calls) == ("computed", calls)
    assert results.load("two_conventions", "seed-0")["prompts"]["p"].tolist() == [0.5, 0.5]
    assert {name: (checkout / name).read_bytes() for name in files(checkout, "data")} == before
    assert files(checkout, "_build/results") == []
    monkeypatch.delenv(results.RESULTS_VARIABLE)
    assert results.load("two_conventions", "seed-0")["prompts"]["p"].tolist() == [0.25, 0.25]


def test_where_that_folder_has_no_such_result_the_one_that_ships_is_loaded(checkout, monkeypatch):
    get(Counter(), recompute=True)
    monkeypatch.setenv(results.RESULTS_VARIABLE, str(checkout / "_build" / "again"))
    assert results.load("two_conventions", "seed-0").origin == "stored"


def test_the_manifest_says_how_a_result_was_made(checkout, monkeypatch):
    monkeypatch.setenv(results.NOTEBOOK_VARIABLE, "notebooks/toy.py")
    record = get(Counter(), recompute=True).record
    content = json.loads(results.manifest_path().read_text())
    (known,) = content["results"].values()
    assert known["notebook"] == "notebooks/toy.py"
    assert known["parameters"] == {"k": 10, "ks": [1, 2], "seed": 0}
    for name in ("schema", "version", "inputs", "versions", "wall_seconds"):
        assert known[name] == record[name]
    assert str(record["cpu"]["cores"]) in known["device"]


def test_two_runs_may_store_results_at_the_same_time(checkout):
    """Each changes the manifest; none loses what the other wrote."""
    from concurrent.futures import ThreadPoolExecutor

    def store(number):
        for turn in range(10):
            name = f"{number}-{turn}.json"
            results._update_manifest({f"results/{name}": b"{}"})

    (checkout / "data").mkdir()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store, range(4)))
    assert len(results.manifest()) == 40


def test_a_result_is_taken_out_with_its_files_and_its_entries(checkout):
    get(Counter(), recompute=True)
    get(Counter(), name="seed-01", recompute=True)
    (checkout / "data/results/two_conventions/cpu/seed-0.curve.parquet").unlink()
    assert len(results.remove("two_conventions/cpu/seed-0")) == 3
    assert results.verify() == []
    assert {name.split(".")[0] for name in files(checkout)} == {
        "data/results/two_conventions/cpu/seed-01"
    }
    assert len(results.records()) == 1
    with pytest.raises(UserError, match="has no result 'two_conventions/cpu/seed-0'"):
        results.remove("two_conventions/cpu/seed-0")
    assert len(results.remove("two_conventions")) == 3
    assert results.manifest() == {}
