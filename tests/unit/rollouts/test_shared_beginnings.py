"""Answers drawn with nothing computed twice: their law, their rewards, their log-probabilities."""

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.rollouts import Sampling
from passgrad.rollouts.shared_beginnings import NAME, sample_laws, truncated
from passgrad.tasks.base import Prompt, Task, exact_match

TASK = Task(
    "tiny",
    tuple(Prompt("x=7\n", q, a, "g", q) for q, a in (("ab=", "3"), ("ba=", "44"))),
    exact_match,
    "\n",
    2,
)
LAWS = [(3000, Sampling(0, 0.7, 0.9)), (2000, Sampling(1))]


@pytest.fixture(scope="module")
def drawn(tiny_model, tiny_tokenizer):
    model = tiny_model()
    return model, sample_laws(model, tiny_tokenizer, TASK, LAWS)


def test_every_answer_comes_as_often_as_it_should(drawn, tiny_tokenizer):
    model, rollouts = drawn
    stop = tiny_tokenizer("\n")["input_ids"][0]
    for (number, law), found in zip(LAWS, rollouts, strict=True):
        table = found.table.to_pandas()
        assert len(table) == 2 * number
        assert set(table["engine"]) == {NAME}
        for prompt in TASK.prompts:
            ids = tiny_tokenizer(prompt.text)["input_ids"]
            mine = table[table["prompt_id"] == prompt.id]["completion_ids"].map(tuple)
            seen = mine.value_counts()
            first = law_of(model, ids, law)
            for token in range(len(first)):
                if token == stop:
                    check(seen.get((stop,), 0), float(first[token]), number)
            best = int(first.argmax())
            second = law_of(model, [*ids, best], law)
            for token in second.topk(3).indices.tolist():
                if best != stop:
                    chance = float(first[best] * second[token])
                    check(seen.get((best, token), 0), chance, number)


def law_of(model, ids, law):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return truncated(logits, law.temperature, law.top_p)


def check(count, chance, number):
    spread = (number * chance * (1 - chance)) ** 0.5
    assert abs(count - number * chance) <= 4.5 * spread + 1e-9


def test_rewards_and_log_probabilities(drawn, tiny_tokenizer, plain_logprob):
    model, rollouts = drawn
    table = rollouts[1].table.to_pandas()
    right = (table["completion"] == table["prompt_id"].map({"ab=": "3", "ba=": "44"})) & (
        table["finish_reason"] == "stop"
    )
    assert (table["reward"] == right).all()
    for _, row in table.drop_duplicates(["prompt_id", "completion"]).head(8).iterrows():
        prefix = tiny_tokenizer(row["prompt"])["input_ids"]
        known = plain_logprob(model, prefix, list(row["completion_ids"]))
        assert row["logprob"] == pytest.approx(known, abs=1e-6)


def test_the_seed_decides(drawn, tiny_tokenizer):
    model, rollouts = drawn
    few = [(5, Sampling(0, 0.7, 0.9))]
    again = [sample_laws(model, tiny_tokenizer, TASK, few)[0].table for _ in range(2)]
    assert again[0].equals(again[1])
    assert rollouts[0].num_samples == 3000


def test_the_nucleus():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).double().log()
    for top_p, kept in ((1.0, 4), (0.96, 4), (0.95, 3), (0.81, 3), (0.79, 2), (0.2, 1)):
        law = truncated(logits, 1.0, top_p)
        assert int((law > 0).sum()) == kept
        assert float(law.sum()) == pytest.approx(1)
    assert np.allclose(truncated(logits, 0.5, 1.0), np.square([10, 6, 3, 1]) / 146)


def test_what_it_does_not_draw(tiny_model, tiny_tokenizer):
    with pytest.raises(UserError, match="num_samples is 0"):
        sample_laws(tiny_model(), tiny_tokenizer, TASK, [(0, Sampling())])
    with pytest.raises(UserError, match="top_k is 5"):
        sample_laws(tiny_model(), tiny_tokenizer, TASK, [(1, Sampling(top_k=5))])
