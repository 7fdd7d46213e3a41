import numpy as np
import pandas as pd
import pytest

from passgrad_book.experiments.study import outcomes
from passgrad_book.experiments.study.words import FAMILIES

STEPS = (0, 10, 50, 150, 1000)
#: arm -> pass@1 and pass@8 of held-out prompts at STEPS, in points, before the seed's shift
LEVELS = {
    "pass@1": ((50, 52, 56, 60, 70), (80, 80, 80, 80, 80)),
    "pass@8": ((50, 49, 40, 45, 65), (80, 85, 90, 90, 90)),
    "mixture 0.5": ((50, 51, 55, 60, 80), (80, 82, 85, 88, 90)),
    "better": ((50, 51, 55, 60, 84), (80, 82, 85, 88, 91)),
    "greedy": ((50, 51, 55, 60, 86), (80, 80, 80, 80, 80)),
}


@pytest.fixture(scope="module")
def readings():
    """A made study of four seeds in two regimes: in "positive" pass@8 training does not dip."""
    rows = []
    for regime, cosine in (("negative", -0.4), ("positive", 0.5)):
        for seed in range(4):
            for arm, (first, eighth) in LEVELS.items():
                for place, step in enumerate(STEPS):
                    shift = 0.002 * seed * (arm == "better" and step > 0)
                    dip = arm == "pass@8" and regime == "positive"
                    level = 50 + place if dip else first[place]
                    row = {"regime": regime, "seed": seed, "arm": arm, "step": step}
                    row |= {"held_pass@1": level / 100 + shift, "held_pass@8": eighth[place] / 100}
                    row |= {"path": step / 100 * (2 if arm == "pass@1" else 1), "silent": 0.5}
                    # the sign turns within ten steps on the last seed
                    turned = -1 if seed == 3 and step == 10 else 1
                    row |= {"cosine": turned * cosine, "cosine_adam": cosine}
                    row |= {f"held_{family}": 0.6 if seed else 0.4 for family in FAMILIES}
                    rows.append(row)
    return pd.DataFrame(rows)


def test_an_interval_is_that_of_student():
    values = pd.Series([1.0, 2.0, 4.0])
    found = outcomes.interval(values)
    error = values.std() / 3**0.5
    assert found["mean"] == pytest.approx(7 / 3)
    assert found["high"] - found["mean"] == pytest.approx(4.302652729911275 * error)
    assert np.isnan(outcomes.interval(pd.Series([1.0]))["low"])


def test_between_readings_a_level_is_interpolated(readings):
    levels = outcomes.at(readings, 100, "held_pass@1")
    assert levels.loc[("negative", 0), "pass@1"] == pytest.approx(0.58)
    assert outcomes.at(readings, 150, "held_pass@1").loc[("negative", 0), "pass@1"] == 0.60


def test_differences_are_within_a_seed(readings):
    price = outcomes.differences(readings, 1000, "held_pass@1", "pass@1")
    assert price.loc[("negative", 0), "pass@8"] == pytest.approx(-0.05)
    assert (price["pass@1"] == 0).all()
    # "better" has another level on every seed, and each seed is compared with its own
    behind = outcomes.differences(readings, 1000, "held_pass@1", "better")
    assert behind.loc[("negative", 3), "pass@8"] == pytest.approx(0.65 - 0.846)
    gain = outcomes.differences(readings, 1000, "held_pass@1", "start")
    assert gain.loc[("negative", 2), "better"] == pytest.approx(0.34 + 0.004)
    table = outcomes.intervals(gain)
    assert table.loc[("negative", "better"), "mean"] == pytest.approx(0.343)
    assert table.loc[("negative", "better"), "low"] < 0.343


def test_the_path_of_a_run(readings):
    table = outcomes.paths_of(readings).set_index(["regime", "arm", "seed"])
    run = table.loc[("negative", "pass@8", 1)]
    assert run["lowest"] == 0.40
    assert run["lowest_step"] == 50
    # 0.49, 0.40 and 0.45 lie below the start: steps 10 to 1000
    assert run["below"] == 990
    assert run["end"] == 0.65
    assert table.loc[("negative", "pass@1", 1), "below"] == 0


def test_predictors_are_judged_by_what_came(readings):
    table = outcomes.predictions(readings)
    assert table["dip"].groupby("regime").sum().to_dict() == {"negative": 4, "positive": 0}
    calls = outcomes.right_calls(table, "dip").set_index(["predictor", "regime"])
    assert calls.loc[("at the start", "all"), "right"] == 8
    assert calls.loc[("after ten steps", "all"), "right"] == 6
    assert calls.loc[("after ten steps", "negative"), "missed"] == 1
    assert calls.loc[("after ten steps", "positive"), "false_alarm"] == 1
    assert calls.loc[("always", "all"), ["right", "false_alarm"]].tolist() == [4, 4]


def test_verdicts_want_a_gain_and_no_loss(readings):
    verdict = outcomes.verdicts(readings)
    # "greedy" has more pass@1 and less pass@8
    expected = {"better": True, "greedy": False, "pass@1": False, "pass@8": False}
    assert verdict["better"].to_dict() == expected
    assert verdict.loc["pass@1", "pass@1 below"] == "negative, positive"
    assert verdict.loc["pass@1", "pass@8 below"] == "negative, positive"


def test_kept_families_and_shortfalls(readings):
    assert outcomes.kept(readings).loc[("negative", "pass@8")].tolist() == [3, 4]
    short = outcomes.shortfalls(readings)
    assert short.index[0] == "better"
    assert short.loc["better", "largest"] == 0
    mean = 0.84 + 0.003
    assert short.loc["pass@1", "negative"] == pytest.approx((mean + 0.91) / 2 - 0.75)


def test_levels_at_equal_path(readings):
    # pass@1 goes twice as far a step: at the length of the others' end it is at step 500.
    table = outcomes.at_equal_path(readings, "held_pass@1", ["pass@1", "pass@8"])
    part = (500 - 150) / 850
    assert table.loc[("negative", 0), "pass@1"] == pytest.approx(0.60 + part * 0.10)
    assert table.loc[("negative", 0), "pass@8"] == pytest.approx(0.65)
