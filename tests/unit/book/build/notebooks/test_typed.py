"""Values of parameters are what was typed, by the declared type."""

import json
import os
import sys

import pytest

from passgrad import cli, plain_yaml
from passgrad.errors import UserError
from passgrad.plain_yaml import read_mapping
from passgrad_book.build.notebooks.typed import value_of

REFUSED = object()


@pytest.mark.parametrize(
    ("text", "whole", "real", "truth", "words"),
    [
        ("010", 10, 10.0, REFUSED, "010"), ("08", 8, 8.0, REFUSED, "08"),
        ("1:30", REFUSED, REFUSED, REFUSED, "1:30"), ("1e3", 1000, 1000.0, REFUSED, "1e3"),
        ("0x10", 16, REFUSED, REFUSED, "0x10"), ("1_000", 1000, 1000.0, REFUSED, "1_000"),
        ("1 000", REFUSED, REFUSED, REFUSED, "1 000"), ("-5", -5, -5.0, REFUSED, "-5"),
        ("2.5", REFUSED, 2.5, REFUSED, "2.5"), ("2.0", 2, 2.0, REFUSED, "2.0"),
        ("yes", REFUSED, REFUSED, True, "yes"), ("no", REFUSED, REFUSED, False, "no"),
        ("on", REFUSED, REFUSED, True, "on"), ("off", REFUSED, REFUSED, False, "off"),
        ("true", REFUSED, REFUSED, True, "true"), ("False", REFUSED, REFUSED, False, "False"),
        ("1", 1, 1.0, REFUSED, "1"), ("", REFUSED, REFUSED, REFUSED, ""),
        ("null", REFUSED, REFUSED, REFUSED, "null"), ("inf", REFUSED, float("inf"), REFUSED, "inf"),
        ("2024-01-01", REFUSED, REFUSED, REFUSED, "2024-01-01"),
        ("1e999", REFUSED, REFUSED, REFUSED, "1e999"),
        ("٣", REFUSED, REFUSED, REFUSED, "٣"),
    ],
)  # fmt: skip
def test_the_declared_type_reads_the_text(text, whole, real, truth, words):
    for annotation, default, wanted in (
        ("int", 1, whole), ("float", 0.5, real), ("bool", True, truth), ("str", "a", words),
        ("int | None", 1, None if text in ("null", "") else whole),
    ):  # fmt: skip
        if wanted is REFUSED:
            with pytest.raises(UserError, match=f"the parameter k is {annotation.split()[0]}") as e:
                value_of(text, "k", annotation, default)
            assert "\n" not in str(e.value)
        else:
            value = value_of(text, "k", annotation, default)
            assert value == wanted
            assert type(value) is type(wanted)


@pytest.mark.parametrize(
    ("annotation", "default", "text", "wanted"),
    [
        ("list", [1, 2], "[010, 2]", [10, 2]), ("list", [1, 2], "1,2,3", [1, 2, 3]),
        ("list", [1, 2], "(1, 2)", [1, 2]), ("list", [0.5], "[1, 1e-3]", [1.0, 0.001]),
        ("list", ["a"], "[no, 010, 1:30]", ["no", "010", "1:30"]),
        ("list", ["a"], "['a, b', \"c\"]", ["a, b", "c"]),
        ("list", [[1, 2]], "[[3, 04]]", [[3, 4]]),
        ("list[int]", [], "[1, 2]", [1, 2]), ("list", [], "[1, 0.5, a, true, 010]",
                                              [1, 0.5, "a", True, "010"]),
        ("list", [1], "[]", []), ("list", [1], "[1:30]", REFUSED), ("list", [1], "[true]", REFUSED),
        ("list", [1], "[1", REFUSED), ("dict", {}, "{a: 1, b: no}", {"a": 1, "b": "no"}),
        ("Literal['cpu', 'gpu']", "cpu", "gpu", "gpu"), ("Literal['cpu']", "cpu", "tpu", REFUSED),
        ("int | str", 1, "x", "x"), ("int | str", 1, "07", 7), ("Optional[int]", 1, "none", None),
    ],
)  # fmt: skip
def test_lists_and_choices(annotation, default, text, wanted):
    if wanted is REFUSED:
        with pytest.raises(UserError, match="the parameter ks|is no list"):
            value_of(text, "ks", annotation, default)
    else:
        assert value_of(text, "ks", annotation, default) == wanted


def test_yaml_keeps_what_was_typed(tmp_path):
    path = tmp_path / "a.yml"
    path.write_text("a: 010\nb: '1'\nc: [no, 1:30]\nd: {e: ~}\nf: null\n")
    tree = read_mapping(path)
    assert tree == {"a": "010", "b": "1", "c": ["no", "1:30"], "d": {"e": "~"}, "f": "null"}
    assert (tree["f"].null, tree["b"].quoted, tree["a"].quoted) == (True, True, False)
    for text, says in (
        ("a: 1\na: 2\n", "line 2: 'a' stands twice"), ("- 1\n", "holds no names with values"),
        ("a: [\n", "is not YAML .line"), ("a: &x [*x]\n", "refers to itself"),
        ("? [1]\n: 2\n", "line 1: a name is no text"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UserError, match=says):
            read_mapping(path)
    with pytest.raises(UserError, match="no such file"):
        read_mapping(tmp_path / "nowhere.yml")


def test_numbers_of_yaml_are_those_of_its_newer_rules():
    text = "[010, 1:30, no, yes, on, 1e3, 10, 0.5, true, ~, 1_000, 0x10, 2024-01-01, -3, .inf]"
    assert plain_yaml.load(text) == [
        "010", "1:30", "no", "yes", "on", 1000.0, 10, 0.5, True, None, "1_000", "0x10",
        "2024-01-01", -3, float("inf"),
    ]  # fmt: skip


NOTEBOOK = """# %% tags=["parameters"]
k: int = 1
name: str = "a"
ks: list = [1]

# %%
import os, sys
print(sys.executable, os.environ.get("FOREIGN_KERNEL"))
"""


def test_a_file_of_parameters_goes_before_the_profile(checkout, tmp_path, capsys):
    (checkout / "notebooks" / "first.py").write_text(NOTEBOOK)
    path = tmp_path / "params.yml"
    path.write_text("k: 012\nname: no\nks: [1, 02]\n")
    with pytest.raises(SystemExit):
        cli.main(["run", "first", "--parameters", "-f", str(path), "-p", "k=3"])
    assert capsys.readouterr().out.split("  #")[0] == "k = 3"
    with pytest.raises(SystemExit):
        cli.main(["run", "first", "--parameters", "-f", str(path)])
    shown = [line.split("  #")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["k = 12", "name = 'no'", "ks = [1, 2]"]
    path.write_text("kk: 1\n")
    with pytest.raises(SystemExit):
        cli.main(["run", "first", "--parameters", "-f", str(path)])
    assert "unknown parameter 'kk' of first.py" in capsys.readouterr().err


def test_a_run_uses_the_interpreter_of_its_record(checkout, tmp_path, monkeypatch, processes):
    """A kernel of another environment, under the usual name and first in Jupyter's path."""
    (checkout / "notebooks" / "first.py").write_text(NOTEBOOK)
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": ["/usr/bin/env", "FOREIGN_KERNEL=1", *argv], "display_name": "Other",
            "language": "python"}  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", f"{tmp_path / 'jupyter'}{os.pathsep}")
    from passgrad_book.build import notebooks

    made = notebooks.run_notebook("first", output_dir=tmp_path / "out", progress=False)
    assert f"{sys.executable} None" in made.read_text()
