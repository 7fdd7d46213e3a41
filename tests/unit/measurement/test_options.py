"""Groups of options, and the same options by name."""

import dataclasses
import inspect

import pytest

import passgrad as pg
from passgrad.cli.measure import measure as command
from passgrad.errors import UserError
from passgrad.measurement.options import (
    Drawing,
    Estimating,
    Judging,
    Logged,
    Options,
    Running,
    Stepping,
)
from passgrad.measurement.step import StepSize

GROUPS = (Drawing, Judging, Estimating, Stepping, Running, Logged)


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        (Drawing, {"samples": 0}, "samples is 0; give a whole number of at least 1"),
        (Drawing, {"samples": 2.5}, "samples is 2.5; give a whole number"),
        (Drawing, {"samples": True}, "samples is True; give a whole number"),
        (Drawing, {"max_new_tokens": 0}, "max_new_tokens is 0; give a whole number"),
        (Drawing, {"engine": "tgi"}, "unknown engine 'tgi'; the engines are auto, vllm"),
        (Drawing, {"engine": "server"}, "engine 'server' without base_url"),
        (Drawing, {"engine": "vllm", "base_url": "http://a"}, "engine 'vllm' with base_url"),
        (Judging, {"verifier": "exactly"}, "exactly"),
        (Judging, {"verifier_seconds": 0}, "limit is 0 seconds; give a positive number"),
        (Judging, {"verifier_memory": 0}, "memory is 0 MiB; give at least 1"),
        (Estimating, {"ks": []}, "ks is empty: name at least one k"),
        (Estimating, {"ks": [0, 2]}, "k must be a whole number of at least 1, got 0"),
        (Estimating, {"ks": [1.5]}, "k must be a whole number of at least 1, got 1.5"),
        (Estimating, {"reading": "old"}, "must be \"new\" .* got 'old'"),
        (Estimating, {"estimator": "ppo"}, "ppo"),
        (Estimating, {"level": 1.0}, "level must lie strictly between 0 and 1, got 1.0"),
        (Stepping, {"step_size": "points=x"}, "'points=x' is no size of a step"),
        (Stepping, {"step_size": "miles=1"}, "in points, length or eta, not in 'miles'"),
        (Stepping, {"step_size": -1}, "must be finite and positive, got -1"),
        (Running, {"token_budget": 0}, "token_budget is 0; give a whole number"),
    ],
)
def test_a_bad_value_is_refused_when_the_group_is_made(group, options, message):
    with pytest.raises(UserError, match=message) as caught:
        group(**options)
    assert "\n" not in str(caught.value)


def test_values_are_brought_into_one_form():
    assert Estimating(ks=[8, 1, 8, 2]).ks == (1, 2, 8)
    assert Estimating(ks=4).ks == (4,)
    assert Drawing(base_url="http://a").engine == "server"
    assert Stepping(step_size="eta=0.02").size == StepSize(0.02, "eta")
    assert Stepping(step_size=StepSize(2)).size == StepSize(2, "points")


def test_flat_names_are_sorted_into_the_groups():
    flat = {
        "samples": 32, "seed": 3, "verifier": "math", "ks": [1, 2], "reading": "fixed",
        "step_size": "points=2", "verify_step": True, "resume": True,
    }  # fmt: skip
    assert Options.sort(flat) == Options(
        Drawing(samples=32, seed=3),
        Judging(verifier="math"),
        Estimating(ks=[1, 2], reading="fixed"),
        Stepping(step_size=StepSize(2), verify_step=True),
        Running(resume=True),
    )


def test_groups_and_names_of_other_groups_go_together():
    options = Options.sort({"ks": [1, 4]}, Drawing(samples=16))
    assert options.drawing.samples == 16
    assert options.estimating.ks == (1, 4)


@pytest.mark.parametrize(
    ("step", "flat", "expected"),
    [
        (True, {}, Stepping()),
        (False, {}, None),
        (None, {}, None),
        (StepSize(3), {}, Stepping(step_size=StepSize(3))),
        (Stepping(verify_step=True), {}, Stepping(verify_step=True)),
        (True, {"step_size": StepSize(3)}, Stepping(step_size=StepSize(3))),
        # It cannot be taken without being predicted.
    ],
)
def test_a_step_is_a_group_a_size_or_a_yes_or_no(step, flat, expected):
    assert Options.sort(flat, step=step).step == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample": 32}, "no option 'sample': did you mean 'samples'?"),
        ({"verifier_second": 3}, "no option 'verifier_second': did you mean 'verifier_seconds'?"),
        ({"zebra": 1}, "no option 'zebra'; the options are drawing, judging,"),
        (
            {"samples": 32, "drawing": Drawing(engine="vllm")},
            r"samples is given by itself and drawing as a group: write drawing=Drawing\(samples=",
        ),
        ({"step_size": "eta=1", "step": StepSize()}, "step_size is given by itself and step as"),
        ({"judging": "math"}, r"judging is 'math'; give judging=Judging\(...\)"),
        ({"step": "points=1"}, r"step is 'points=1'; give step=Stepping\(...\)"),
    ],
)
def test_measure_refuses_what_it_cannot_place(tmp_path, options, message):
    with pytest.raises(UserError, match=message) as caught:
        pg.measure("nowhere", "nothing.jsonl", out=tmp_path / "m", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_the_command_has_every_option_with_its_default():
    defaults = {}
    for group in GROUPS:
        defaults |= {field.name: field.default for field in dataclasses.fields(group)}
    defaults.pop("progress")
    offered = {
        name: parameter.default for name, parameter in inspect.signature(command).parameters.items()
    }
    assert offered.pop("step") is True
    for name in ("model", "out", "prompts", "config", "dry_run"):
        offered.pop(name)
    assert offered == defaults


def test_every_field_is_documented():
    for group in GROUPS:
        source = inspect.getsource(group)
        for field in dataclasses.fields(group):
            after = source.split(f"    {field.name}: ", 1)[1].split("\n", 1)[1]
            assert after.lstrip().startswith('"""'), f"{group.__name__}.{field.name}"
