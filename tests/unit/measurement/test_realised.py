"""Steps that are taken: exact ones against the series, sampled ones against exact ones."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.models import load_model, save_model
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement import drawing
from passgrad.measurement.realised import (
    NewSamples,
    TakenStep,
    realised_from_counts,
    save_moved,
    verify_step,
)
from passgrad.measurement.second_order import ModelSteps
from passgrad.measurement.step import StepSize, predict_step
from passgrad.objectives import PassAtK
from passgrad.rollouts.sampling import sample
from passgrad.stats.paired import paired_change
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.worlds.bandit import TwoPointBandit
from passgrad.worlds.language import LanguageWorld

from .exact_steps import exact_derivatives, realised_step

PROMPTS = tuple(
    Prompt(context, question, answer, "x", f"x{i}")
    for i, (context, question, answer) in enumerate(
        [("a\n", "b=", "a"), ("ab\n", "a=", "b"), ("ab\n", "ab=", "a"), ("b\n", "a=", "b")]
    )
)
TASK = Task("tiny", PROMPTS, exact_match, "\n", 3)
KS = (1, 2, 4)


@pytest.fixture(scope="module")
def place(make_tokenizer, tiny_model, tmp_path_factory):
    tokenizer = make_tokenizer("ab=\n")
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, folder)


def third_order(world, theta, v, scale):
    """The slope of log error over log eta of the series to second order: (K,)."""
    first, second = exact_derivatives(world, theta, v, KS)
    etas = torch.tensor([scale, scale / 2, scale / 4], dtype=torch.float64)
    exact = realised_step(world, theta, v, etas.tolist(), KS)
    series = etas[:, None] * first + etas[:, None] ** 2 / 2 * second
    error = (exact - series).abs().log2()
    assert (series.abs() > 10 * (exact - series).abs()).all()
    return error[:-1] - error[1:]


def test_the_series_is_right_to_second_order_in_the_bandit():
    world, theta = TwoPointBandit(), (-2.0, -2.0)
    _, v = world.objective_gradient(theta, PassAtK(4))
    slopes = third_order(world, theta, v / v.norm(), 0.05)
    assert ((slopes > 2.9) & (slopes < 3.1)).all()


def test_the_series_is_right_to_second_order_in_a_language_model(tiny_model, make_tokenizer):
    tokenizer = make_tokenizer("ab=\n")
    world = LanguageWorld(tiny_model(tokenizer=tokenizer), tokenizer, PROMPTS)
    _, v = world.objective_gradient(None, PassAtK(4))
    slopes = third_order(world, None, v / v.norm(), 0.01)
    assert ((slopes > 2.8) & (slopes < 3.2)).all()


def test_counts_give_the_paired_changes():
    before, after = [3, 0, 8, 5], [5, 1, 7, 8]
    made = realised_from_counts(before, after, 8, KS)
    joint = paired_change([8] * 4, before, after, KS)
    np.testing.assert_array_equal(made.change.value, joint.change)
    np.testing.assert_array_equal(made.change.band_low, joint.low)
    assert (made.change.low >= made.change.band_low).all()
    assert (made.change.high <= made.change.band_high).all()


@pytest.fixture(scope="module")
def measured(place):
    """A prediction of the tiny model from its own samples, along grad J_2."""
    rollouts = sample(place, TASK, num_samples=400, engine="transformers")
    model, tokenizer = load_model(place)
    completions = Completions.from_rollouts(rollouts, tokenizer)
    passes = CompletionPasses(model, completions, rollouts.rewards)
    steps = ModelSteps(passes)
    return steps, predict_step(steps, 2, KS, size=StepSize(4.0), prompts="fixed")


def test_a_step_that_is_taken(measured, place, tmp_path):
    """Prediction and samples at moved weights, both against the exact change of this step."""
    steps, prediction = measured
    before = steps.passes.layout.flatten(steps.passes.model)
    realised = verify_step(
        prediction, steps, place, TASK, tmp_path, samples=NewSamples(1500, "transformers")
    )
    assert torch.equal(before, steps.passes.layout.flatten(steps.passes.model))
    world = LanguageWorld(*load_model(place), PROMPTS)
    v = steps.vector(prediction.derivatives.coefficients)
    exact = realised_step(world, None, v, [prediction.eta], KS)[0].numpy()
    for made in (prediction.total, realised.change):
        error = (made.high - made.low) / 4
        assert (np.abs(made.value - exact) < 4 * error).all()
    # Both see the step: no change at all lies outside.
    assert realised.change.low[1] > 0
    assert prediction.total.low[1] > 0
    both = TakenStep(prediction, realised)
    assert "; it changed pass@1 by" in both.verdict
    assert both.to_frame()["realised_change"].tolist() == realised.change.value.tolist()
    # The moved model is gone, and what was drawn is enough for the same numbers.
    assert not list(tmp_path.glob("*/model"))
    again = verify_step(
        prediction, steps, place, TASK, tmp_path, samples=NewSamples(1500, "transformers")
    )
    assert np.array_equal(again.change.value, realised.change.value)


def test_a_step_that_was_interrupted_goes_on(measured, place, tmp_path, monkeypatch):
    steps, prediction = measured
    monkeypatch.setattr(drawing, "BLOCK", 2)
    options = {"samples": NewSamples(8, "transformers")}
    whole = verify_step(prediction, steps, place, TASK, tmp_path / "whole", **options)
    calls = []

    def stops(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return sample(*args, **kwargs)

    monkeypatch.setattr(drawing, "sample", stops)
    with pytest.raises(KeyboardInterrupt):
        verify_step(prediction, steps, place, TASK, tmp_path / "cut", **options)
    again = verify_step(prediction, steps, place, TASK, tmp_path / "cut", **options)
    assert len(calls) == 5
    np.testing.assert_array_equal(again.after, whole.after)
    np.testing.assert_array_equal(again.before, whole.before)


def test_refusals(measured, place, tmp_path):
    steps, prediction = measured
    with pytest.raises(UserError, match="prompts are given for a measurement"):
        verify_step(
            prediction, steps, place, Task("t", PROMPTS[:3], exact_match, "\n", 3), tmp_path,
            samples=NewSamples(8),
        )  # fmt: skip
    with pytest.raises(UserError, match="do not show pass@4"):
        verify_step(prediction, steps, place, TASK, tmp_path, samples=NewSamples(3))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        f'{{"base_model_name_or_path": "{place}", "peft_type": "LORA", "r": 1}}'
    )
    save_file({"weight": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="step of an adapter"):
        save_moved(steps.passes, torch.zeros(1), 0.1, adapter, tmp_path / "moved")
