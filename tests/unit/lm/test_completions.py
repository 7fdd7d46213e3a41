"""Completions as distinct sequences: which are equal, what a row holds, what is summed."""

from dataclasses import asdict

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.rollouts import SCHEMA, Rollouts, Sampling

ids = st.lists(st.integers(0, 2), min_size=1, max_size=3)


@st.composite
def cases(draw):
    num_prompts, n = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    prompts = draw(st.lists(ids, min_size=num_prompts, max_size=num_prompts))
    some = st.lists(ids, min_size=n, max_size=n)
    return prompts, draw(st.lists(some, min_size=num_prompts, max_size=num_prompts))


@settings(deadline=None, max_examples=100)
@given(cases())
def test_each_completion_finds_its_own_sequence(case):
    prompts, drawn = case
    made = Completions.from_tokens(prompts, drawn)
    assert made.shape == (len(prompts), len(drawn[0]))
    for x, some in enumerate(drawn):
        for i, completion in enumerate(some):
            sequence = made.sequences[made.places[x, i]]
            assert (sequence.prefix, sequence.target) == (tuple(prompts[x]), tuple(completion))
    assert len(set(made.sequences)) == len(made.sequences)
    assert made.multiplicity.sum() == made.places.numel()
    assert made.multiplicity.min() >= 1


@settings(deadline=None, max_examples=100)
@given(cases(), st.data())
def test_rows_hold_what_is_asked_for_once(case, data):
    made = Completions.from_tokens(*case)
    total = len(made.sequences)
    members = data.draw(st.lists(st.integers(0, total - 1), unique=True))
    budget = data.draw(st.integers(1, 20))
    for packed in (True, False):
        rows = made.rows(members, token_budget=budget, packed=packed)
        assert sorted(i for row in rows for i in row.members) == sorted(members)
        for row in rows:
            assert packed or len(row.members) == 1
            for owner, member in enumerate(row.members):
                mine = row.targets[row.owners == owner]
                assert tuple(mine.tolist()) == made.sequences[member].target


@settings(deadline=None, max_examples=100)
@given(cases(), st.integers(0, 1000))
def test_sums_over_completions_are_sums_over_sequences(case, seed):
    made = Completions.from_tokens(*case)
    generator = torch.Generator().manual_seed(seed)
    c = torch.randn(made.shape, generator=generator, dtype=torch.float64)
    values = torch.randn(len(made.sequences), generator=generator, dtype=torch.float64)
    assert torch.isclose(made.gather(c) @ values, (c * made.spread(values)).sum())


def test_equal_completions_are_one_sequence_of_their_prompt():
    made = Completions.from_tokens([[1], [2]], [[[5, 6], [5, 6], [7]], [[5, 6], [7], [7]]])
    assert made.places.tolist() == [[0, 0, 1], [2, 3, 3]]
    assert made.multiplicity.tolist() == [2, 1, 1, 2]
    assert made.gather(torch.tensor([[1.0, 2, 3], [4, 5, 6]])).tolist() == [3, 3, 4, 11]
    assert made.num_tokens() == 2 + 1 + 2 + 1


def test_a_choice_of_completions_is_their_sequences():
    made = Completions.from_tokens([[1], [2]], [[[5], [5], [7]], [[5], [7], [7]]])
    where = torch.tensor([[False, True, False], [False, True, True]])
    assert made.chosen(where) == [0, 3]
    assert made.chosen() == [0, 1, 2, 3]
    assert made.chosen(torch.zeros(2, 3, dtype=torch.bool)) == []
    assert made.rows([]) == []


def test_a_sample_is_small_spread_and_never_empty():
    prompts = [[x] * 10 for x in range(20)]
    made = Completions.from_tokens(prompts, [[[i, i, i] for i in range(30)]] * 20)
    every = made.chosen()
    assert len(made.sample(every, 0)) == 1
    some = made.sample(every, 100)
    assert some == made.sample(every, 100)
    assert sum(row.num_tokens for row in made.rows(some)) <= 100
    seen = {made.sequences[i].prefix for i in some}
    assert len(seen) >= 4
    assert max(prefix[0] for prefix in seen) - min(prefix[0] for prefix in seen) >= 8
    assert set(made.sample([3, 4], 10**6)) == {3, 4}


def test_rollouts_become_completions_in_the_order_of_their_rewards(tiny_tokenizer):
    def row(prompt, sample, token_ids, reward):
        return {
            "prompt_id": prompt, "group": "g", "prompt": {"b": "1+1=", "a": "2+2="}[prompt],
            "sample": sample, "completion_ids": token_ids, "completion": "?", "reward": reward,
            "logprob": -0.5, "finish_reason": "stop", "engine": "transformers",
            "max_new_tokens": 4, "stop": "\n",
        } | asdict(Sampling())  # fmt: skip

    mixed = [
        row("b", 0, [5, 6], 1.0), row("a", 0, [7], 0.0), row("b", 1, [8], 0.0),
        row("a", 1, [7], 1.0),
    ]  # fmt: skip
    rollouts = Rollouts(pa.Table.from_pylist(mixed, schema=SCHEMA))
    made = Completions.from_rollouts(rollouts, tiny_tokenizer)
    assert made.names == ("b", "a")
    assert [made.sequences[i].target for i in made.places.flatten()] == [(5, 6), (8,), (7,), (7,)]
    assert made.sequences[0].prefix == tuple(tiny_tokenizer("1+1=")["input_ids"])
    assert made.shape == rollouts.rewards.shape


@pytest.mark.parametrize(
    ("prompts", "drawn", "message"),
    [
        ([], [], "no prompts; give at least one"),
        ([[1]], [], "1 prompts, 0 lists of completions"),
        ([[1], [2]], [[[1]], [[1], [2]]], "between 1 and 2 completions"),
        ([[1]], [[]], "between 0 and 0 completions"),
        ([[]], [[[1]]], "prompt '0' has no tokens"),
        ([[1]], [[[1], []]], "completion 1 of prompt '0' has no tokens; keep the stop token"),
    ],
)
def test_refusals(prompts, drawn, message):
    with pytest.raises(UserError, match=message):
        Completions.from_tokens(prompts, drawn)


def test_other_shapes_are_refused():
    made = Completions.from_tokens([[1]], [[[5], [6]]])
    with pytest.raises(UserError, match=r"coefficients of shape \(2,\)"):
        made.gather(torch.ones(2))
    with pytest.raises(UserError, match=r"where must be \(1, 2\) of True and False"):
        made.chosen(torch.ones(1, 2))
