"""Options that would have no effect are refused by name, before anything is loaded."""

import json

import pytest

from passgrad import cli, measure
from passgrad.errors import UserError
from passgrad.measurement.applicable import check_applicable
from passgrad.measurement.options import Drawing, Judging, Options
from passgrad.measurement.prompts import as_task
from passgrad.tasks.arithmetic import arithmetic


@pytest.mark.parametrize(
    ("prompts", "options", "says"),
    [
        ("arithmetic", {"verifier": "math"}, "--verifier .*the task arithmetic has its own"),
        ("arithmetic", {"stop": "X"}, "--stop .*the task arithmetic has its own"),
        ("gym:gcd", {"max_new_tokens": 3}, "--max-new-tokens .*the task gym:gcd"),
        (arithmetic(), {"verifier_seconds": 1.0}, "--verifier-seconds .*has its own"),
        (None, {"rollouts": "r.jsonl", "engine": "vllm"}, "--engine .*come from the rollouts"),
        (None, {"rollouts": "r.jsonl", "base_url": "http://a"}, "--base-url .*rollouts"),
        (None, {"rollouts": "r.jsonl", "samples": 8}, "--samples .*rollouts"),
        ("p.jsonl", {"reward": "a"}, "--reward .*no rollouts are given"),
        ("p.jsonl", {"threshold": 0.5}, "--threshold .*no rollouts are given"),
        ("p.jsonl", {"verifier_memory": 99}, "--verifier-memory .*exact runs in no process"),
        ("p.jsonl", {"parts": False, "adam": "a.safetensors"}, "--adam .*those are left out"),
    ],
)
def test_what_does_not_apply(prompts, options, says, tmp_path):
    with pytest.raises(UserError, match=says) as caught:
        measure("no-such-model", prompts, out=tmp_path / "m", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("options", [{"step_size": "eta=1"}, {"verify_step": True}])
def test_a_step_that_is_left_out_is_not_described(options):
    with pytest.raises(UserError, match=r"does not apply: --no-step \(step=False\)"):
        Options.sort(options, step=False)


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        ("p.jsonl", {"verifier": "math", "verifier_seconds": 2, "stop": "\n"}),
        ("arithmetic", {"samples": 8, "engine": "transformers"}),
        ("p.jsonl", {"rollouts": "r.jsonl", "verifier": "math", "max_new_tokens": 9}),
        ("p.jsonl", {"rollouts": "r.jsonl", "engine": "vllm", "verify_step": True}),
        (None, {"rollouts": "r.jsonl", "seed": 3, "ks": [1]}),
    ],
)
def test_what_applies(prompts, options):
    check_applicable(Options.sort(options), prompts)


def test_the_command_refuses_them_too(capsys, tmp_path):
    given = ["--model", "x", "--out", str(tmp_path / "m"), "--prompts", "arithmetic"]
    for more, says in (
        [["--stop", "X"], "--stop (stop=)"],
        [["--no-step", "--verify-step"], "--v"],
    ):
        with pytest.raises(SystemExit):
            cli.main(["measure", *given, *more])
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1


def test_a_misspelt_file_or_task_gets_a_hint(tmp_path):
    (tmp_path / "problems.jsonl").write_text(json.dumps({"prompt": "a", "answer": "1"}))
    for given, says in (
        (tmp_path / "problem.jsonl", "did you mean .*problems.jsonl"),
        ("arithmetik", "did you mean 'arithmetic'"),
        ("nothing-like-it", "is no file and no task; give a file of prompts, or one of conv"),
    ):
        with pytest.raises(UserError, match=says):
            as_task(str(given), "no-model", Judging(), Drawing())


def test_references_are_tried_before_the_model_is_looked_for(processes):
    prompts = [("", "1+1=", "2"), ("", "1/2=", "\\frac{1}{")]
    with pytest.raises(UserError, match="prompt '1' has the answer .* no number, words or LaTeX"):
        as_task(prompts, "no-model", Judging(verifier="math"), Drawing())
