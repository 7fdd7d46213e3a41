"""A data set under two laws, on a tiny model: what is stored, and what it is good for."""

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.interference import conflict
from passgrad.lm.tokens import TokenizedPrompt
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.worlds.language import LanguageWorld
from passgrad_book.experiments.mathematics.as_printed import estimate, exact, steps
from passgrad_book.experiments.mathematics.math_study import (
    Settings,
    rewards_of,
    sharpened,
    study,
    vectors_of,
)

ASKED = [("ab=", "3"), ("ba=", "4"), ("cc=", "55")]
TASK = Task(
    "tiny",
    tuple(Prompt("x=7\n", q, a, "g", str(i)) for i, (q, a) in enumerate(ASKED)),
    exact_match,
    "\n",
    3,
)


@pytest.fixture(scope="module")
def made(tiny_model, tiny_tokenizer):
    model = tiny_model()
    settings = Settings(num_samples=400, size=2**14, seed=3)
    tables = study("tiny", model, tiny_tokenizer, TASK, single=True, settings=settings)
    return model, tables


def test_success_rates_are_those_of_the_world_and_of_the_counts(made, tiny_tokenizer):
    model, tables = made
    world = LanguageWorld(model, tiny_tokenizer, TASK.prompts, stop=TASK.stop)
    p = world.success().numpy()
    prompts = tables["prompts"]
    np.testing.assert_allclose(prompts["success"], p, rtol=1e-6)
    assert tables["facts"]["engine"][0] == "shared beginnings"
    for column, rate, n in (
        ("correct_policy", p, 800),
        ("correct_printed", prompts["success_printed"].to_numpy(), 400),
    ):
        spread = (rate * (1 - rate) / n) ** 0.5
        assert (np.abs(prompts[column] / n - rate) <= 4.5 * spread + 1e-12).all()
    assert (rewards_of(tables, "policy").sum(1).numpy() == prompts["correct_policy"]).all()
    assert rewards_of(tables, "printed").shape == (3, 400)
    answers = tables["answers"]
    assert (answers["reward"] <= answers["judged"]).all()


def test_the_exact_product_is_that_of_the_world(made, tiny_tokenizer):
    model, tables = made
    world = LanguageWorld(model, tiny_tokenizer, TASK.prompts, stop=TASK.stop)
    truth = conflict(world, None, ks=[1, 4])
    p = torch.tensor(tables["prompts"]["success"].to_numpy())
    inner, cosine = exact(vectors_of(tables), "all parameters", p, [1, 4])
    scale = truth.norm * truth.norm_at_1
    assert ((inner - truth.inner_product) / scale).abs().max() < 0.05  # the sketch
    assert (cosine - truth.cosine).abs().max() < 0.05


def test_every_step_can_be_taken(made):
    _, tables = made
    vectors = vectors_of(tables)
    printed, policy = (rewards_of(tables, law) for law in ("printed", "policy"))
    for step in steps((0.5, 0.4)):
        counts = [printed.sum(1)]
        if step.law == "policy":
            counts = [policy[:, :400].sum(1), policy[:, 400:].sum(1)][: 2 if step.halves else 1]
        found = estimate(vectors, step, counts, 400, 4)
        assert torch.isfinite(found.inner)


def test_without_a_single_answer_the_right_ones_have_a_mean(tiny_model, tiny_tokenizer):
    either = Task(TASK.name, TASK.prompts, lambda y, _: len(y) == 1, "\n", 3)
    settings = Settings(num_samples=600, size=256, centred=False)
    tables = study("t", tiny_model(), tiny_tokenizer, either, single=False, settings=settings)
    assert tables["prompts"]["success"].isna().all()
    kinds = set(zip(tables["vectors"]["kind"], tables["vectors"]["law"], strict=True))
    assert kinds == {("right", "printed"), ("right", "policy")}
    vectors = vectors_of(tables)
    solved = torch.tensor(tables["prompts"]["correct_policy"].to_numpy()) > 0
    assert ((vectors.right["policy"] >= 0) == solved).all()
    assert (vectors.wrong["policy"] == -1).all()


def test_the_sharpened_law(tiny_model, plain_logprob):
    model = tiny_model()
    one = TokenizedPrompt((1, 2, 3), (4, 5))
    plain = np.exp(plain_logprob(model, one.prefix, one.target))
    assert sharpened(model, one, 1.0, 1.0) == pytest.approx(plain, rel=1e-6)
    # One step by hand.
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 2, 3]])).logits[0, -1].double()
    law = (logits / 0.5).softmax(-1)
    order = law.argsort(descending=True)
    before = law[order].cumsum(0) - law[order]
    nucleus = order[before < 0.6]
    for token in range(len(law)):
        mine = float(law[token] / law[nucleus].sum()) if token in nucleus.tolist() else 0.0
        found = sharpened(model, TokenizedPrompt((1, 2, 3), (token,)), 0.5, 0.6)
        assert found == pytest.approx(mine, rel=1e-6)
    with pytest.raises(UserError, match="give positive ones"):
        sharpened(model, one, 0.0, 0.5)


def test_a_single_answer_needs_a_stop(tiny_model, tiny_tokenizer):
    open_ended = Task("t", TASK.prompts, exact_match, None, 3)
    with pytest.raises(UserError, match="has no stop"):
        study("t", tiny_model(), tiny_tokenizer, open_ended, single=True, settings=Settings(2))
