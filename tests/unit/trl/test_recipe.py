import json
import re

import pytest

from passgrad import UserError
from passgrad.trl.recipe import Recipe, summarise, train
from passgrad.trl.schedules import AfterSteps, AnnealedK, FixedK, as_plan


@pytest.fixture
def recipe(tiny, tmp_path):
    """A tiny model and a file of prompts, three steps."""
    model, tokenizer = tiny
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"{i}+{i + 1}=", "answer": str(i)} for i in range(8)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return lambda **changed: Recipe(
        **{
            "model": str(folder), "prompts": str(prompts), "out": tmp_path / "run", "k": 2,
            "samples": 4, "prompts_per_step": 2, "steps": 4, "eval_every": 2, "held_out": 3,
            "max_new_tokens": 3, "learning_rate": 1e-3,
        }
        | changed
    )  # fmt: skip


def lines(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_run_that_is_stopped_goes_on(processes, recipe, tmp_path):
    whole = recipe(out=tmp_path / "whole")
    summary = train(whole)
    assert summary["pass@2_end"]["step"] == 4
    assert summary["pass@1_start"]["low"] <= summary["pass@1_start"]["value"]
    assert (whole.out / "curve.svg").is_file()
    assert (whole.out / "model.safetensors").is_file()
    # two steps, and lines of a third that was not kept
    train(recipe(steps=2))
    with (tmp_path / "run" / "log.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 3, "loss": 9.0}) + "\n")
    again = train(recipe())
    assert again["pass@2_end"]["step"] == 4
    logged = [row["step"] for row in lines(tmp_path / "run") if "loss" in row]
    assert logged == sorted(logged) == [1, 2, 3, 4]
    assert 9.0 not in [row.get("loss") for row in lines(tmp_path / "run")]
    assert again["pass@1_start"]["step"] == 0
    assert json.loads((whole.out / "summary.json").read_text()) == summary


def test_its_rewards_are_read_as_a_log(recipe, tmp_path):
    from passgrad.measurement.logs.counting import read_visits

    given = recipe()
    train(given)
    visits = read_visits(str(given.out / "completions"))
    assert visits.num_prompts >= 2


def test_a_folder_of_other_settings_is_refused(recipe, tmp_path):
    train(recipe(steps=1))
    with pytest.raises(UserError, match=r"holds a run with k 2, this one has 3"):
        train(recipe(k=3))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty, and no run"):
        train(recipe(out=other))
    with pytest.raises(UserError, match="hold out at least 2"):
        train(recipe(out=tmp_path / "third", held_out=7))


def test_objectives_are_plans():
    def plan(**changed):
        return as_plan(Recipe("m", "p", None, **changed).plan())

    assert plan().weights(0) == {1: 0.5, 8: 0.5}
    assert plan(objective="pass@k", k=4).weights(0) == {4: 1}
    assert isinstance(plan(objective="pass@1"), FixedK)
    assert isinstance(plan(objective="annealed"), AnnealedK)
    assert isinstance(plan(objective="after-steps", share=0.2), AfterSteps)
    assert "pcgrad" in plan(objective="conflict-free").describe()
    for changed, match in (
        ({"objective": "passk"}, "one of mixture, pass@k"),
        ({"share": 1.0}, "above 0 and below 1"),
    ):
        with pytest.raises(UserError, match=match):
            plan(**changed)


def test_the_summary_has_start_lowest_and_end():
    names = [f"eval_pass@{k}{end}" for k in (1, 8) for end in ("", "_low", "_high")]
    history = [
        {"step": step} | dict.fromkeys(names, level)
        for step, level in ((0, 0.5), (10, 0.2), (20, 0.6))
    ]
    history += [
        {"step": step, "passk/silent_groups": share} for step, share in [(5, 0.25), (6, 0.75)]
    ]
    found = summarise(history, Recipe("m", "p", None), 7)
    assert [found[f"pass@8_{word}"]["step"] for word in ("start", "lowest", "end")] == [0, 10, 20]
    assert found["silent_groups"] == 0.5
    assert "pass@8_end" not in summarise(history, Recipe("m", "p", None, objective="pass@1"), 7)


def test_the_command_says_what_is_missing(tmp_path, capsys):
    from passgrad.cli import main

    with pytest.raises(SystemExit):
        main(["train", "--model", "smollm2-135m"])
    assert "prompts is not set" in capsys.readouterr().err
    config = tmp_path / "config.yml"
    config.write_text("model: x\nstepz: 3\n")
    with pytest.raises(SystemExit):
        main(["train", str(config)])
    assert re.search(r"no option 'stepz': did you mean 'steps'", capsys.readouterr().err)
    main_example(tmp_path, capsys)


def main_example(tmp_path, capsys):
    from passgrad.cli import main
    from passgrad.plain_yaml import read_mapping

    with pytest.raises(SystemExit):
        main(["train", "--example"])
    example = tmp_path / "example.yml"
    example.write_text(capsys.readouterr().out)
    assert read_mapping(example)["objective"] == "mixture"
