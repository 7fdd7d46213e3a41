import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from passgrad.measurement import estimate_conflict, sample_bandit
from passgrad.measurement.record import remarks
from passgrad.worlds.bandit import TwoPointBandit


def estimate(num_prompts, theta=(1.0, 1.0)):
    world = TwoPointBandit(separation=0.2, hard_fraction=0.5)
    samples = sample_bandit(world, torch.tensor(theta), 16, num_prompts=num_prompts, seed=1)
    return estimate_conflict(samples, [1, 2, 4])


def test_a_weak_signal_comes_first():
    strong, weak = estimate(2000), estimate(6)
    assert not [text for text in remarks(strong) if "hardly seen" in text]
    error = weak.inner_product / np.array([2.5, 9, 9])
    weak = replace(weak, interval=replace(weak.interval, error=error))
    assert "is 2.5 standard errors from 0" in remarks(weak)[0]


def test_prompts_without_a_gradient_are_counted():
    success = np.array([0.0, 0.0, 1.0, 0.5])
    one = replace(estimate(40), success=success, masses=np.full(4, 0.25))
    texts = " ".join(remarks(one))
    assert "2 of 4 prompts have no right answer" in texts
    assert "1 of 4 prompts have right answers only" in texts


def test_weight_on_prompts_that_were_never_solved_is_said():
    hard = replace(estimate(40), success=np.array([0.0] * 20 + [0.5] * 20), num_samples=16)
    text = next(text for text in remarks(hard) if "lies on prompts without" in text)
    # Of k(1 - p)^(k - 1) at k = 4 and p = 1/2 there is an eighth of that at p = 0.
    assert "at k = 2, " in text
    assert re.search(r"(8[0-9]|9[0-9])% at k = 4", text)
    assert "k = 1" not in text
    solved = replace(hard, success=np.array([0.5] * 40))
    assert not any("lies on prompts without" in text for text in remarks(solved))


def test_incidents_are_summed_up():
    found = remarks(estimate(2000), [{"reason": "late"}, {"reason": "late"}, {"reason": "died"}])
    assert "count as wrong: late (2 times), and 1 other reason." in found[0]
    found = remarks(estimate(2000), [{"reason": "it raised KeyError: 'a'"}] * 4)
    assert (
        "4 completions had no ordinary verdict and count as wrong: it raised KeyError: 'a'."
        in (found[0])
    )


def test_right_answers_that_were_cut_off_are_counted():
    def drawn(ends):
        columns = {"reward": [1.0, 1.0, 1.0, 1.0, 0.0], "finish_reason": ends}
        return SimpleNamespace(table=pa.table(columns))

    [text] = [
        t
        for t in remarks(estimate(2000), (), drawn(["stop", "stop", "length", "length", "stop"]))
        if "cut" in t
    ]
    assert "50% of the right answers were cut off by the limit of tokens (2 of 4)" in text
    ends = ["stop"] * 4 + ["length"]
    assert not [t for t in remarks(estimate(2000), (), drawn(ends)) if "cut off" in t]


@pytest.mark.parametrize(("degrees", "named"), [([30, 30, 3.1], "k = 4 "), ([30, 30, 30], None)])
def test_errors_that_rest_on_few_prompts_are_named(degrees, named):
    texts = remarks(replace(estimate(2000), degrees=np.array(degrees, dtype=float)))
    found = [text for text in texts if "handful of prompts" in text]
    assert bool(found) == bool(named)
    assert not named or named in found[0]
