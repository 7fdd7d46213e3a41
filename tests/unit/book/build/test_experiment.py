"""Keys of experiments, and the list of them."""

import importlib
import pkgutil

import pytest

import passgrad_book.experiments
from passgrad.errors import UserError
from passgrad.provenance import file_sha256
from passgrad_book.build import results
from passgrad_book.build.experiment import HOMES, Experiment, experiment, find


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_experiment_is_listed_once_and_every_listed_one_is_there(processes):
    found = {}
    for module in pkgutil.walk_packages(
        passgrad_book.experiments.__path__, "passgrad_book.experiments."
    ):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Experiment) and value.module == module.name:
                assert value.name == name
                found[name] = module.name.removeprefix("passgrad_book.")
    assert found == HOMES
    assert [find(name).name for name in HOMES] == list(HOMES)


def test_an_unknown_experiment_lists_the_known_ones():
    with pytest.raises(
        UserError, match="there is no experiment 'none'; there are: two_conventions"
    ):
        find("none")


def test_the_key_is_all_that_the_tables_depend_on(toy, problems):
    key = toy.doubled.key({"size": 3})
    assert (key.experiment, key.version, key.name) == ("doubled", 1, "size-3-seed-0")
    assert key.parameters == {"size": 3, "seed": 0}
    assert key.inputs == {"model": "ab" * 32, "path": None}
    assert toy.doubled.key({"size": 3, "seed": 0}) == key
    assert toy.doubled.key({"size": 3, "seed": 1}) != key


def test_a_file_enters_by_its_content_and_not_by_its_path(toy, problems, tmp_path):
    key = toy.doubled.key({"size": 3, "path": str(problems)})
    assert key.inputs["path"] == file_sha256(problems)
    assert "path" not in key.parameters
    other = tmp_path / "elsewhere.jsonl"
    other.write_bytes(problems.read_bytes())
    assert toy.doubled.key({"size": 3, "path": str(other)}) == key
    other.write_text("[]\n")
    assert toy.doubled.key({"size": 3, "path": str(other)}) != key
    with pytest.raises(UserError, match="experiment doubled: path: there is no file nowhere.jsonl"):
        toy.doubled.key({"size": 3, "path": "nowhere.jsonl"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "experiment doubled: missing a required argument: 'size'; its parameters: size"),
        (
            {"size": 3, "sizes": 4},
            "unexpected keyword argument 'sizes'; its parameters: size",
        ),
    ],
)
def test_missing_and_unknown_parameters_are_named(toy, given, message):
    for ask in (toy.doubled, toy.doubled.result, toy.doubled.key):
        with pytest.raises(UserError, match=message):
            ask(given) if ask == toy.doubled.key else ask(**given)
    assert toy.runs == 0


def test_names_of_results():
    label = {"ascended": "pass@8", "k": "1, 2"}
    for form in ("{ascended}-k-{k}", lambda given: f"{given['ascended']}-k-{given['k']}"):

        @experiment(version=1, label=form)
        def toy(*, ascended, k):
            return {}

        assert toy.key(label).name == "pass-at-8-k-1-2"


def test_a_stored_result_is_read_whatever_the_code_is_and_a_computed_one_is_made_again(toy):
    toy.doubled.result(size=2, recompute=True)
    toy.doubled.result(size=3)
    assert toy.runs == 2
    toy.digest, toy.factor = "b" * 64, 3.0
    assert toy.doubled.result(size=2)["curve"]["y"].tolist() == [2.0, 4.0]
    assert toy.runs == 2
    assert toy.doubled.result(size=3)["curve"]["y"].tolist() == [3.0, 6.0, 9.0]
    assert toy.doubled.result(size=3).origin == "computed"
    assert toy.runs == 3


def test_a_raised_version_and_other_weights_make_a_result_again(toy):
    toy.doubled.result(size=2, recompute=True)
    toy.model = None  # not in the cache
    assert toy.doubled.result(size=2).origin == "stored"
    toy.model = "cd" * 32
    assert toy.doubled.result(size=2).origin == "computed"
    toy.model, toy.doubled.version = "ab" * 32, 2
    assert toy.doubled.result(size=2).origin == "computed"
    assert toy.runs == 3
    assert results.load("doubled", "size-2-seed-0").record["version"] == 1
