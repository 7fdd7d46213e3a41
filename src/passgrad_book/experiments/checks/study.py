"""What the training study shows: results of ``training_study``."""

from __future__ import annotations

from passgrad_book.experiments.study import outcomes

#: the regimes with words to be written backwards, which the checkpoint seldom writes
_HARD = ("negative", "hidden", "zero")


def dips() -> dict[str, float]:
    """Where pass@8 training takes held-out pass@1 a point below its start within 150 steps, and
    where it is still below at step 1,000.
    """
    readings = outcomes.read_study()
    fell = outcomes.dips(readings)
    ends = outcomes.intervals(outcomes.differences(readings, 1000, "held_pass@1", "start"))
    return {
        "starts": float(sum(len(fell[regime]) for regime in _HARD)),
        "share_with_hard_prompts": float(fell.loc[list(_HARD)].mean()),
        "positive": float(fell["positive"].sum()),
        "hidden_end": float(ends.loc[("hidden", "pass@8"), "high"]),
    }


def price() -> dict[str, float]:
    """Held-out pass@1 of pass@8 training less that of pass@1 training at step 150."""
    readings = outcomes.read_study()
    gaps = outcomes.differences(readings, 150, "held_pass@1", "pass@1")["pass@8"]
    return {
        "starts": float(len(gaps)),
        "share_below": float((gaps < 0).mean()),
        "positive_upper_end": float(outcomes.interval(gaps["positive"])["high"]),
    }


def sign() -> dict[str, float]:
    """How often the sign of the cosine of pass@1 and pass@8 is right about a dip."""
    readings = outcomes.read_study()
    calls = outcomes.right_calls(outcomes.predictions(readings), "dip")
    whole = calls[calls["regime"] == "all"].set_index("predictor")
    return {
        "false_alarms_at_the_start": float(whole.loc["at the start", "false_alarm"]),
        "missed_at_the_start": float(whole.loc["at the start", "missed"]),
        "share_right_at_the_start": float(whole.loc["at the start", "right"])
        / float(whole.loc["at the start", "of"]),
        "gain_after_ten_steps": float(
            whole.loc["after ten steps", "right"] - whole.loc["at the start", "right"]
        ),
    }


def remedies() -> dict[str, float]:
    """Arms beside the untuned mixture of halves at step 1,000, in how many regimes above it."""
    readings = outcomes.read_study()
    verdict = outcomes.verdicts(readings)
    better = verdict[verdict["better"].astype(bool)]
    regimes = [len(str(row).split(", ")) for row in better["pass@1 above"]]
    beside = outcomes.verdicts(readings, "pass@1")
    pass_at_8 = verdict.loc["pass@8", "pass@1 below"]
    return {
        "arms": float(len(verdict)),
        "above_pass_at_1": float((beside["pass@1 above"] != "").sum()),
        "better_in_several": float(sum(number > 1 for number in regimes)),
        "pass_at_8_below_in": float(len(str(pass_at_8).split(", "))) if pass_at_8 else 0.0,
    }
