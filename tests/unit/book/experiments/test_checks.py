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
    def run(task, objective, cosine, *changes):
        ends = {f"pass@{k}": [0.5, 0.5 + one] for k, one in zip((1, 8), changes, strict=True)}
        table = pd.DataFrame(ends | {"cosine pass@8": [cosine, 0.9]})
        given = {"parameters": {"task": task, "targets": [0.8, 0.1], "objective": objective}}
        return results.Result({"steps": table}, given, "stored")

    made = [
        run("a", "pass@1", -0.1, 0.1, -0.02),
        run("a", "pass@1", -0.1, 0.1, -0.04),
        run("a", "pass@8", -0.1, -0.05, 0.1),
        run("b", "pass@1", 0.2, 0.2, 0.01),
        run("b", "pass@8", 0.2, 0.03, 0.3),
    ]
    monkeypatch.setattr(training, "_runs", lambda: made)
    found = training.exchange()
    assert found["pass_at_1_up_pass_at_8"] == pytest.approx(-0.05)
    assert found["pass_at_8_up_pass_at_1"] == pytest.approx(-0.03)
    assert found["lowest_without"] == pytest.approx(0.01)
    assert (found["starts_with_conflict"], found["starts_without"]) == (1, 1)


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
