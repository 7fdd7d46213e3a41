import pandas as pd
import pytest
import torch

from passgrad import UserError
from passgrad.objectives import PassAtK
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.worlds.language import LanguageWorld

SMALL = {"steps": 2, "learning_rate": 0.5, "batch_prompts": 2, "measure_every": 1}


def small_task():
    prompts = [Prompt("", f"{x}+{x}=", str(2 * x), "easy", f"e{x}") for x in (1, 2, 3)]
    return Task(
        "sums",
        (*prompts, Prompt("", "3+4=", "7", "hard", "h")),
        exact_match,
        "\n",
        3,
    )


@pytest.fixture
def start(tiny):
    from passgrad_book.experiments.training import prepare

    return prepare(*tiny, small_task(), targets=(0.7, 0.2), steps=150, learning_rate=0.01, layers=2)


def test_the_checkpoint_has_the_rates_that_were_asked_for(start):
    p = start.world.success()
    assert p[:3].mean() == pytest.approx(0.7, abs=0.15)
    assert p[3] == pytest.approx(0.2, abs=0.15)
    trained = [name for name, one in start.model.named_parameters() if one.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_a_run_and_the_same_again(start):
    from passgrad_book.experiments.training import train

    first = train(start, "pass@1", 3, **SMALL)
    torch.testing.assert_close(start.world.own_parameters(), start.theta, rtol=0, atol=0)
    again = train(start, "pass@1", 3, **SMALL)
    for name, table in first.items():
        pd.testing.assert_frame_equal(table, again[name])
    other = train(start, "pass@1", 4, **SMALL)["steps"]
    assert other["pass@1"].iloc[-1] != first["steps"]["pass@1"].iloc[-1]

    steps, prompts = first["steps"], first["prompts"]
    assert steps["step"].tolist() == [0, 1, 2]
    assert len(prompts) == 3 * 4
    assert len(first["conflict"]) == 2
    # The exact values at the start are those of a world of its own.
    world = LanguageWorld(start.world.model, start.tokenizer, start.task.prompts)
    p = world.success(start.theta)
    assert prompts[prompts["step"] == 0]["p"].tolist() == pytest.approx(p.tolist(), rel=1e-5)
    for k in (1, 8):
        value = float(PassAtK(k).value(p).mean())
        assert steps[f"pass@{k}"][0] == pytest.approx(value, rel=1e-5)
        gradient = world.objective_gradient(start.theta, PassAtK(k))[1]
        assert steps[f"norm pass@{k}"][0] == pytest.approx(float(gradient.norm()), rel=1e-4)
    # The groups of a batch: pass@1 of the batch is among the possible values.
    assert steps["batch pass@1"][:2].between(0, 1).all()
    assert steps["batch pass@1"].isna()[2]


@pytest.mark.parametrize("objective", ["pass@1", "pass@4", "GRPO"])
def test_the_batch_tells_pass_at_8_whatever_is_trained(start, objective):
    from passgrad_book.experiments.training import train

    steps = train(start, objective, 3, **SMALL | {"steps": 1}, num_generations=12)["steps"]
    assert 0 <= steps["batch pass@1"][0] <= steps["batch pass@8"][0] <= 1


def test_a_small_step_does_what_is_predicted(start):
    from passgrad_book.experiments.training import train

    steps = train(start, "GRPO", 3, **{**SMALL, "learning_rate": 1e-3})["steps"]
    moved = steps[steps["length"] > 0]
    assert len(moved)
    for k in (1, 4, 8):
        error = moved[f"predicted pass@{k}"] - moved[f"realised pass@{k}"]
        assert (error.abs() < 0.05 * moved[f"realised pass@{k}"].abs() + 1e-6).all()


def test_grpo_is_that_of_trl(lab, tiny, tmp_path):
    """The same update as TRL's own trainer with its standardised advantages."""
    import copy

    from trl import GRPOTrainer

    from passgrad.trl import PassKGRPOTrainer
    from passgrad_book.experiments.training import OBJECTIVES

    model, tokenizer = tiny
    ends = []
    for base, scale, own in (
        (GRPOTrainer, "group", {}),
        (PassKGRPOTrainer, "none", OBJECTIVES["GRPO"]),
    ):
        trainer = base(
            copy.deepcopy(model), lab.digit_reward,
            lab.make_config(tmp_path, scale_rewards=scale, seed=2, max_steps=2),
            lab.make_dataset(), processing_class=tokenizer, **own,
        )  # fmt: skip
        trainer.train()
        ends.append(torch.cat([one.detach().reshape(-1) for one in trainer.model.parameters()]))
    before = torch.cat([one.detach().reshape(-1) for one in model.parameters()])
    assert (ends[0] - before).norm() > 1e-4
    assert (ends[1] - ends[0]).norm() < 1e-3 * (ends[0] - before).norm()


@pytest.mark.parametrize(
    ("targets", "match"), [((0.5,), "for each of"), ((0.5, 1.0), "within"), ((0.0, 0.5), "within")]
)
def test_targets_that_do_not_fit(tiny, targets, match):
    from passgrad_book.experiments.training import prepare

    with pytest.raises(UserError, match=match):
        prepare(*tiny, small_task(), targets=targets)


def test_an_unknown_objective(start):
    from passgrad_book.experiments.training import train

    with pytest.raises(UserError, match="is none of"):
        train(start, "pass@3", 0)


def test_sums_of_reasoning_gym():
    pytest.importorskip("reasoning_gym")
    from passgrad_book.experiments.training import gym_sums

    task = gym_sums(num_prompts=(5, 3), seed=1)
    assert [x.group for x in task.prompts] == ["two terms"] * 5 + ["three terms"] * 3
    assert len({x.question for x in task.prompts}) == 8
    for x in task.prompts:
        assert x.question.endswith(" = ")
        assert 0 <= int(x.answer) == eval(x.question[:-2])
        assert task.verify(x.answer, x)
        assert not task.verify(x.answer + " ", x)
    assert task == gym_sums(num_prompts=(5, 3), seed=1)
