"""The tables of the reference page name the columns that there are."""

import dataclasses
import re

import torch

from passgrad.measurement import estimate_conflict, sample_bandit
from passgrad.measurement.options import Drawing, Estimating, Judging, Logged, Running, Stepping
from passgrad.measurement.parts import Folding, estimate_parts
from passgrad.measurement.realised import TakenStep, realised_from_counts
from passgrad.measurement.samples import bandit_steps
from passgrad.measurement.step import predict_step
from passgrad.rollouts.foreign_logs import PLAIN
from passgrad.tasks.prompt_files import COLUMNS
from passgrad.worlds.bandit import TwoPointBandit


def documented(root, heading):
    """The names in the first column of the table behind a line."""
    text = (root / "book" / "measure.md").read_text().split(f"\n{heading}\n", 1)[1]
    names = []
    for line in text.splitlines():
        if line.startswith("| `"):
            names += re.findall(r"`([^`]+)`", line.split("|")[1])
        elif names:
            return names
    return names


def test_columns_of_the_tables(root):
    world = TwoPointBandit(separation=0.2, hard_fraction=0.5)
    samples = sample_bandit(world, torch.tensor([1.0, 1.0]), 8, num_prompts=20)
    estimate = estimate_conflict(samples, [1, 2])
    assert set(documented(root, "`curve.parquet`:")) == set(estimate.to_frame().columns)
    prompts = {re.sub(r"_\d+$", "_K", name) for name in estimate.prompts_frame()}
    assert set(documented(root, "`prompts.parquet`:")) == prompts | {
        "prompt_id", "group", "num_correct",
    }  # fmt: skip


def test_columns_of_parts_and_step(root):
    world = TwoPointBandit(separation=0.2, hard_fraction=0.5)
    steps = bandit_steps(world, [1.0, 1.0], torch.arange(20) % 2, 16)
    step = predict_step(steps, 2, [1, 2])
    taken = TakenStep(step, realised_from_counts([3] * 10, [5] * 10, 16, [1, 2]))
    heading = "`step.parquet`, a step along the gradient of one order, `--step-size`:"
    assert set(documented(root, heading)) == set(taken.to_frame().columns)
    parts = estimate_parts(steps, 2, folding=Folding(2))
    heading = "`parts.parquet`, at the k with the most negative product in units of its error:"
    assert set(documented(root, heading)) == set(parts.to_frame().columns)


def test_options_of_the_groups(root):
    text = (root / "book" / "measure.md").read_text().split("\n| group | options |\n", 1)[1]
    rows = [re.findall(r"`([^`]+)`", line) for line in text.splitlines()[1:7]]
    kinds = {"drawing": Drawing, "judging": Judging, "estimating": Estimating}
    kinds |= {"step": Stepping, "running": Running, "logged": Logged}
    assert {group: names for group, *names in rows} == {
        group: [field.name for field in dataclasses.fields(kind)] for group, kind in kinds.items()
    }


def test_columns_of_the_inputs(root):
    assert set(documented(root, "## Prompts")) == set(COLUMNS)
    line = next(
        line for line in (root / "book" / "measure.md").read_text().splitlines()
        if line.startswith("| plain |")
    )  # fmt: skip
    assert set(re.findall(r"`([^`]+)`", line)) == set(PLAIN)
