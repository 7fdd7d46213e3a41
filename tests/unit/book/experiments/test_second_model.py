"""The second real model: how prompts are parted, and what its tables hold, on a tiny model."""

import numpy as np
import pytest
import torch

from passgrad.interference import conflict
from passgrad.objectives import PassAtK
from passgrad_book.experiments import second_model
from passgrad_book.experiments.second_model import halves, qwen_ascents, qwen_conflict, study

GIVEN = {
    "model": "tiny", "kind": "conventions", "seed": 3, "num_prompts": 4, "num_examples": 2,
}  # fmt: skip


@pytest.fixture
def tiny(tiny_model, make_tokenizer, monkeypatch):
    second_model._worlds.cache_clear()
    tokenizer = make_tokenizer("0123456789+=abes \n", [])
    monkeypatch.setattr(
        second_model, "load_model", lambda _: (tiny_model(tokenizer=tokenizer), tokenizer)
    )
    yield lambda: second_model._worlds(*(GIVEN[name] for name in (
        "model", "kind", "num_prompts", "num_examples", "seed"
    )))  # fmt: skip
    second_model._worlds.cache_clear()


def terms(prompt):
    sum_asked = prompt.id.rpartition(":")[2]
    return frozenset(sum_asked.replace("*", "+").replace("%", "+").split("+")), prompt.group


@pytest.mark.parametrize("kind", ["conventions", "arithmetic"])
@pytest.mark.parametrize("seed", range(6))
def test_no_sum_is_on_both_sides(kind, seed):
    num_prompts, num_examples = second_model.SIZES[kind]
    task = second_model._asked(kind, 2 * num_prompts, num_examples, seed)
    first, second = halves(task.prompts, seed)
    assert sorted(map(str, (*first, *second))) == sorted(map(str, task.prompts))
    assert not set(map(terms, first)) & set(map(terms, second))
    for part in (first, second):
        counts = {group: [one.group for one in part].count(group) for group in
                  dict.fromkeys(one.group for one in task.prompts)}  # fmt: skip
        assert set(counts.values()) == {num_prompts}
    if kind == "conventions":  # both bases are cut in the same way
        asked = [{one.id.partition(":")[2] for one in first if one.group == base}
                 for base in ("base 10", "base 9")]  # fmt: skip
        assert asked[0] == asked[1]


def test_the_tables_of_a_conflict(tiny):
    tables = qwen_conflict(**GIVEN, ks=[1, 10])
    world, held_out = tiny()
    curve = conflict(world, None, ks=(1, 10))
    np.testing.assert_allclose(tables["conflict"]["cosine"], curve.cosine)
    np.testing.assert_allclose(tables["prompts"]["agreement"], curve.agreement)
    assert tables["prompts"]["prompt"].tolist() == [one.id for one in world.prompts]
    # A small step along the gradient of pass@10 is what a slope is of.
    _, gradient = world.objective_gradient(None, PassAtK(10))
    size, theta = 1e-4 / float(gradient.norm()), world.own_parameters()
    up, down = (held_out.success(theta + sign * size * gradient) for sign in (1, -1))
    np.testing.assert_allclose(
        tables["held_out"]["slope_10"], (up - down) / (2 * size), rtol=1e-4, atol=1e-12
    )
    # The gradient of pass@1 is the mean of those of the families.
    kernel = tables["kernel"]
    of_prompts = kernel[kernel["part"] == "train"].groupby("prompt")["product"].mean()
    expected = tables["prompts"].set_index("prompt")["agreement"]
    np.testing.assert_allclose(of_prompts[expected.index], expected, rtol=1e-9)
    of_others = kernel[kernel["part"] == "held out"].groupby("prompt")["product"].mean()
    slopes = tables["held_out"].set_index("prompt")["slope_1"]
    np.testing.assert_allclose(of_others[slopes.index], slopes, rtol=1e-9)


@pytest.mark.parametrize("name", second_model.METHODS)
def test_steps_have_one_length_and_do_what_they_say(tiny, name):
    length = 1e-4
    tables = qwen_ascents(**GIVEN, method_name=name, k=10, steps=2, length=length)
    world, held_out = tiny()
    success = tables["success"].set_index(["part", "step", "prompt"])["success"].sort_index()
    for part, one in (("train", world), ("held out", held_out)):
        names = [prompt.id for prompt in one.prompts]
        np.testing.assert_allclose(success[part, 0][names], one.success(), rtol=1e-12)
    values = {
        k: [float(PassAtK(k).value(torch.tensor(success["train", step].to_numpy())).mean())
            for step in range(3)]
        for k in (1, 10)
    }  # fmt: skip
    steps = tables["steps"]
    for column, k in (("predicted_1", 1), ("predicted_k", 10)):
        np.testing.assert_allclose(np.diff(values[k]), steps[column], rtol=1e-2)
    first = steps.iloc[0]
    curve = conflict(world, None, ks=(1, 10))
    assert first["cosine"] == pytest.approx(float(curve.cosine[1]))
    if name == "pass@1":
        assert first["predicted_1"] == pytest.approx(length * curve.norm_at_1)
    if name == "pass@k":
        assert first["predicted_k"] == pytest.approx(length * float(curve.norm[1]))


def test_the_design_has_all_that_it_names():
    labels = [experiment.key(parameters).name for experiment, parameters in study()]
    assert len(labels) == len(set(labels)) == 5 + 3 + 3 * 4
    assert labels[:5] == [f"conventions-seed-{seed}" for seed in (11, 12, 13, 14, 15)]
    assert "conventions-mixture-0.5-seed-12" in labels
