"""Checks that read stored results, on results that are made up."""

import numpy as np
import pandas as pd
import pytest

from passgrad_book.build import paths, results
from passgrad_book.experiments.checks import frontier, life, mathematics, training


def steps(error):
    """A run of two steps whose batches are off by error, and error less a hundredth."""
    exact = np.array([0.5, 0.6, 0.7])
    off = np.array([error, error - 0.01, np.nan])
    columns = {f"pass@{k}": exact for k in (1, 8)}
    return pd.DataFrame(columns | {f"batch pass@{k}": exact + off for k in (1, 8)})


def stored_batches():
    folder = paths.results() / training.EXPERIMENT / "cpu"
    return sum(
        len(pd.read_parquet(file)) - 1 for file in folder.glob("*.steps.parquet")
    )  # the last row of a run has no batch behind it


def test_after_a_rerun_its_runs_alone_are_measured(tmp_path, monkeypatch):
    before = training.trainer_estimates()
    assert before["batches"] == stored_batches()
    monkeypatch.setenv(results.RESULTS_VARIABLE, str(tmp_path))
    key = results.Key(training.EXPERIMENT, 1, "conventions-pass-at-8-seed-0", {})
    results.obtain(key, lambda: {"steps": steps(0.1)})
    found = training.trainer_estimates()
    assert (found["runs"], found["batches"]) == (1, 2)
    # errors 0.1 and 0.09: mean 0.095, deviation 0.01 / sqrt(2), error of the mean 0.005
    assert found["pass_at_1"] == pytest.approx(19)
    assert found["pass_at_8"] == pytest.approx(19)


def test_what_training_exchanges(monkeypatch):
    def run(task, objective, seed, cosine, *changes):
        ends = {f"pass@{k}": [0.5, 0.5 + one] for k, one in zip((1, 8), changes, strict=True)}
        steps = {"cosine pass@8": [cosine, 0.9], "realised pass@1": [np.nan, changes[0]]}
        table = pd.DataFrame(ends | steps)
        given = {"task": task, "targets": [0.8, 0.1], "objective": objective, "seed": seed}
        return results.Result({"steps": table}, {"parameters": given}, "stored")

    made = [
        run("a", "pass@1", 0, -0.1, 0.1, -0.02),
        run("a", "pass@1", 1, -0.1, 0.1, -0.04),
        run("a", "pass@8", 0, -0.1, -0.05, 0.1),
        run("a", "pass@8", 1, -0.1, -0.03, 0.1),
        run("b", "pass@1", 0, 0.2, 0.2, 0.01),
        run("b", "pass@1", 1, 0.2, 0.2, 0.01),
        run("b", "pass@8", 0, 0.2, 0.03, 0.3),
        run("b", "pass@8", 1, 0.2, 0.04, 0.3),
    ]
    monkeypatch.setattr(training, "_runs", lambda: made)
    found = training.exchange()
    assert found["pass_at_1_up_pass_at_8"] == pytest.approx(-0.04)
    assert found["pass_at_8_up_pass_at_1"] == pytest.approx(-0.03)
    assert found["lowest_without"] == pytest.approx(0.01)
    assert (found["starts_with_conflict"], found["starts_without"]) == (1, 1)
    assert found["spread_of_the_one_step"] == pytest.approx(0.02)
    # mean -0.04, error 0.01, and 6.31 of them for 90 % of two seeds
    assert found["upper_end_up_pass_at_8"] == pytest.approx(-0.04 + 6.3138 * 0.01, abs=1e-5)
    # a: -0.15 and -0.13; b: -0.17 and -0.16
    assert found["highest_price"] == pytest.approx(-0.14 + 12.7062 * 0.01, abs=1e-5)


def ascent(method, cosines, changes):
    other = {"pass@k": "1", "pass@1": "k"}[method]
    return pd.DataFrame(
        {
            "method": method,
            "step": range(len(cosines) + 1),
            "cosine": [*cosines, np.nan],
            f"realised_{other}": [*changes, np.nan],
        }
    )


def test_what_a_step_up_one_objective_costs_the_other(monkeypatch):
    one = pd.concat(
        [
            ascent("pass@k", [-0.2, 0.1], [-0.02, 0.01]),  # foretold twice, the conflict ends
            ascent("pass@1", [-0.2, -0.3], [-0.01, 0.03]),  # foretold once
        ]
    )
    other = pd.concat([ascent("pass@k", [-0.1], [0.02]), ascent("pass@1", [-0.1], [-0.04])])
    monkeypatch.setattr(frontier, "_paths", lambda: [one, other])
    found = frontier.prices()
    assert found["seeds"] == 2
    assert found["start"] == -0.1
    assert found["ends"] == 1
    assert found["foretold"] == pytest.approx(4 / 6)
    assert found["pass_at_1_by_a_step_up_pass_at_k"] == 0.02
    assert found["pass_at_k_by_a_step_up_pass_at_1"] == -0.01


def test_a_fall_against_the_sign_is_counted(monkeypatch):
    def orders(seed):
        # rises, and then rises again between two comparisons of negative sign: one against
        return pd.DataFrame({"cosine": [0.5, 0.4, -0.1, -0.2], "pass_at_k": [0.1, 0.2, 0.25, 0.3]})

    monkeypatch.setattr(life, "_orders", orders)
    assert life.falls() == {"against_the_sign": 5, "stretches": 10}
    assert life.phases() == {
        "agree_at_the_start": 5, "conflict": 5, "ended": 0, "deepest": -0.2,
    }  # fmt: skip


def test_the_printed_measurement_is_said_in_units_of_its_noise():
    found = mathematics.conventions()
    assert found["printed_in_errors"] == abs(found["printed"]) / found["printed_error"]
    assert found["noise_over_exact"] == found["printed_error"] / abs(found["exact"])
    assert found["kept"] < found["prompts"]


def test_the_study_is_read_as_its_protocol_says(monkeypatch):
    from passgrad_book.experiments.checks import study
    from passgrad_book.experiments.study import outcomes

    levels = {"pass@1": (0.5, 0.6, 0.7), "pass@8": (0.5, 0.4, 0.6), "mixture 0.5": (0.5, 0.6, 0.72)}
    rows = [
        {
            "regime": regime,
            "seed": seed,
            "arm": arm,
            "step": step,
            "held_pass@1": level + 0.001 * seed + (regime == "positive" and arm == "pass@8") * 0.15
            - (regime == "hidden" and arm == "pass@8" and step == 1000) * 0.2,
            "held_pass@8": 0.9,
            "cosine": 0.1 if (regime, step) == ("zero", 0) else 1 if regime == "positive" else -1,
            "cosine_adam": 0.0,
        }
        for regime in ("negative", "hidden", "zero", "positive")
        for seed in range(3)
        for arm, path in levels.items()
        for step, level in zip((0, 10, 150, 1000), (*path[:2], *path[1:]), strict=True)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.loc[(frame["step"] == 0), "held_pass@1"] = 0.5 + 0.001 * frame["seed"]
    monkeypatch.setattr(outcomes, "read_study", lambda: frame)
    found = study.dips()
    assert (found["starts"], found["share_with_hard_prompts"], found["positive"]) == (9, 1, 0)
    assert found["hidden_end"] == pytest.approx(-0.1)
    assert study.price()["share_below"] == 1
    assert study.price()["positive_upper_end"] == pytest.approx(-0.05)
    calls = study.sign()
    assert (calls["missed_at_the_start"], calls["false_alarms_at_the_start"]) == (3, 0)
    assert calls["gain_after_ten_steps"] == 3
    # at step 1000 pass@8 training is above the mixture in "positive" and below in the others
    assert study.remedies()["pass_at_8_below_in"] == 3
    # pass@8 training in "positive", and the mixture everywhere
    assert study.remedies()["above_pass_at_1"] == 2
