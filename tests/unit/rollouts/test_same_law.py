"""Completions of the model itself pass; those of another law are noticed."""

import math
import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.models import save_model
from passgrad.lm.rollouts import SCHEMA, Rollouts, Sampling
from passgrad.rollouts import same_law
from passgrad.rollouts.foreign_logs import SamplingLawWarning
from passgrad.rollouts.same_law import LawComparison, check_same_law, compare_laws
from passgrad.rollouts.sampling import sample
from passgrad.tasks.base import Prompt, Task, exact_match

TEXTS = ("ab=", "b=", "aab=", "a\nb=", "ba=", "bb=", "abab=", "b\na=")


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer("ab=\n")


@pytest.fixture(scope="module")
def model(tiny_model, tokenizer):
    return tiny_model(tokenizer=tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def place(model, tokenizer, tmp_path_factory):
    return save_model(model, tokenizer, tmp_path_factory.mktemp("law") / "model")


def drawn(place, seed=0, **settings):
    prompts = tuple(Prompt("", text, "a", "", str(i)) for i, text in enumerate(TEXTS))
    task = Task("tiny", prompts, exact_match, "\n", 12)
    law = Sampling(seed=seed, **settings)
    return sample(place, task, num_samples=8, engine="transformers", settings=law)


@pytest.fixture(scope="module")
def own(place):
    return drawn(place)


def changed(rollouts, **columns):
    rows = [
        {**row, **{name: make(row) for name, make in columns.items()}}
        for row in rollouts.table.to_pylist()
    ]
    return Rollouts(pa.Table.from_pylist(rows, schema=SCHEMA))


def test_completions_of_the_model_itself_pass(model, tokenizer, own):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = check_same_law(model, own, tokenizer)
    assert found.gap < 1e-5
    assert not found.differs
    assert found.completions == 64
    assert found.tokens == sum(map(len, own.table["completion_ids"].to_pylist()))


def test_the_two_numbers_are_what_they_say(model, tokenizer, own):
    """One completion, against the whole law of the model at each of its steps."""
    row = own.table.to_pylist()[3]
    one = Rollouts(pa.Table.from_pylist([{**row, "logprob": row["logprob"] + 0.7}], schema=SCHEMA))
    prefix, ids = tokenizer(row["prompt"])["input_ids"], row["completion_ids"]
    excess, variance = 0.0, 0.0
    for place, token in enumerate(ids):
        with torch.no_grad():
            logits = model(torch.tensor([[*prefix, *ids[:place]]])).logits[0, -1].double()
        law = logits.softmax(0).numpy()
        excess += math.log(law[token]) - float(law @ np.log(law))
        variance += float(law @ np.log(law) ** 2) - float(law @ np.log(law)) ** 2
    found = compare_laws(model, one, tokenizer)
    assert found.gap == pytest.approx(0.7 / len(ids), abs=1e-5)
    assert found.excess == pytest.approx(excess / len(ids), abs=1e-5)
    assert found.z == pytest.approx(excess / variance**0.5, abs=1e-4)


def test_surprise_is_standard_normal_under_the_model(model, tokenizer, place):
    """Over seeds: mean 0 and variance 1, within four standard errors of either."""
    z = np.array([compare_laws(model, drawn(place, seed), tokenizer).z for seed in range(25)])
    assert abs(z.mean()) < 4 / 25**0.5
    assert abs(z.var() - 1) < 4 * (2 / 25) ** 0.5
    assert abs(z).max() < same_law.SURPRISE


def test_another_model_is_refused(tiny_model, tokenizer, own):
    other = tiny_model(tokenizer=tokenizer, dtype="float32", seed=1)
    with pytest.raises(UserError, match=r"not from this model: log-prob.* nats a token off") as one:
        check_same_law(other, own, tokenizer)
    assert "\n" not in str(one.value)


def test_another_model_is_noticed_without_log_probabilities(tiny_model, tokenizer, own):
    other = tiny_model(tokenizer=tokenizer, dtype="float32", seed=1)
    blind = changed(own, logprob=lambda row: None)
    with pytest.warns(SamplingLawWarning, match="log-probabilities unknown, tokens .* less likely"):
        found = check_same_law(other, blind, tokenizer)
    assert math.isnan(found.gap)
    assert found.z < -same_law.SURPRISE


@pytest.mark.parametrize("settings", [{"temperature": 0.3}, {"top_k": 1}, {"top_p": 0.4}])
def test_a_law_bent_behind_its_log_probabilities_is_noticed(model, tokenizer, place, settings):
    """The log-probabilities are the policy's: the tokens alone show it."""
    with pytest.warns(SamplingLawWarning, match="nats likelier than draws of the model"):
        found = check_same_law(model, drawn(place, **settings), tokenizer)
    assert found.gap < 1e-5


@pytest.mark.parametrize(("shift", "outcome"), [(0.04, None), (0.06, "warns"), (0.6, "refuses")])
def test_the_thresholds(model, tokenizer, own, shift, outcome):
    moved = changed(own, logprob=lambda row: row["logprob"] + shift * len(row["completion_ids"]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if outcome == "refuses":
            with pytest.raises(UserError, match=r"0\.600 nats a token off"):
                check_same_law(model, moved, tokenizer)
        else:
            assert check_same_law(model, moved, tokenizer).gap == pytest.approx(shift, abs=1e-4)
    assert [one.category for one in caught] == [SamplingLawWarning] * (outcome == "warns")


def test_coarse_weights_stay_below_the_threshold(tiny_model, tokenizer, own):
    """As those of a server in bfloat16."""
    coarse = tiny_model(tokenizer=tokenizer, dtype="bfloat16")
    assert 1e-4 < compare_laws(coarse, own, tokenizer).gap < same_law.WARN


def test_few_tokens_say_nothing(model, tokenizer, own):
    first = own.table.slice(0, 1)
    assert not compare_laws(model, Rollouts(first), tokenizer).surprising


def test_a_large_z_of_a_trifle_is_none():
    assert not LawComparison(9, 10**9, 0.001, 0.001, 30.0).differs
    assert LawComparison(9, 10**4, 0.001, 0.2, 30.0).differs


def test_prompts_from_all_over_the_table_and_no_more_than_needed(
    monkeypatch, model, tokenizer, own, shown
):
    monkeypatch.setattr(same_law, "_PROMPTS", 3)
    monkeypatch.setattr(same_law, "_EACH", 2)
    read = []
    with model.register_forward_pre_hook(
        lambda module, args, inputs: read.append(tokenizer.decode(inputs["input_ids"][0])),
        with_kwargs=True,
    ):
        assert compare_laws(model, own, tokenizer).completions == 6
    # In turns over the prompts: what was drawn twice is read once.
    for text, prompt in zip(read, [TEXTS[0], TEXTS[4], TEXTS[7]], strict=False):
        assert text.startswith(prompt)
    assert compare_laws(model, own, tokenizer, shown, most=1).completions == 1
    assert shown.stages == [["comparing completions with the model", 6, 6]]


def test_tokens_that_the_model_does_not_have(model, tokenizer, own):
    beyond = changed(own, completion_ids=lambda row: [999])
    with pytest.raises(UserError, match="have the token 999, and the model only 5"):
        compare_laws(model, beyond, tokenizer)
