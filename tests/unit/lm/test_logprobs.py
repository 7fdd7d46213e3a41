"""Packing: what lies in a row, what sees what, and the log-probabilities that come out."""

import itertools
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passgrad.errors import UserError
from passgrad.lm.attention import supports
from passgrad.lm.logprobs import additive_mask, join, pack, packed_logprobs, share_prefixes
from passgrad.lm.tokens import TokenizedPrompt

# Few distinct tokens, so that prefixes are shared by chance; stems make long ones common.
tokens = st.integers(0, 3)
stems = st.sampled_from([(), (0, 1, 2, 3, 0, 1), (0, 1, 2, 3, 3, 3, 3, 3)])
prompt = st.builds(
    lambda stem, rest, target: TokenizedPrompt((*stem, *rest), tuple(target)),
    stems,
    st.lists(tokens, min_size=1, max_size=5),
    st.lists(tokens, min_size=1, max_size=4),
)
prompts = st.lists(prompt, min_size=1, max_size=9)


def seen(row, query):
    """The keys that a query may look at, in order."""
    return row.visible()[query].nonzero()[:, 0].tolist()


@settings(deadline=None, max_examples=150)
@given(prompts, st.integers(1, 40))
def test_every_predictor_sees_its_own_sequence_and_nothing_else(some, token_budget):
    """What a plain causal model sees at that place, with the positions that it would have."""
    rows = pack(some, token_budget=token_budget)
    assert sorted(i for row in rows for i in row.members) == list(range(len(some)))
    for row in rows:
        assert row.num_tokens <= token_budget or len(row.members) == 1
        for owner, member in enumerate(row.members):
            mine = [t for t, o in enumerate(row.owners.tolist()) if o == owner]
            assert tuple(row.targets[mine].tolist()) == some[member].target
            for number, t in enumerate(mine):
                keys = seen(row, int(row.predictors[t]))
                expected = some[member].prefix + some[member].target[:number]
                assert tuple(row.input_ids[0, keys].tolist()) == expected
                assert row.position_ids[0, keys].tolist() == list(range(len(expected)))
        # The tokens in between see their own past as well: hidden states must be right too.
        for place in range(row.num_tokens):
            keys = seen(row, place)
            assert keys[-1] == place
            assert row.position_ids[0, keys].tolist() == list(range(len(keys)))


@settings(deadline=None, max_examples=150)
@given(prompts)
def test_sharing_never_costs_tokens(some):
    groups = share_prefixes(some)
    assert sorted(i for _, members in groups for i in members) == list(range(len(some)))
    for shared, members in groups:
        heads = {some[i].prefix[:shared] for i in members}
        assert len(heads) == 1
    alone = sum(pack([one])[0].num_tokens for one in some)
    assert sum(row.num_tokens for row in pack(some, token_budget=10**6)) <= alone


def test_a_common_context_is_computed_once():
    context = tuple(range(50))
    some = [TokenizedPrompt((*context, 60 + i), (70, 71)) for i in range(8)]
    assert [(shared, len(members)) for shared, members in share_prefixes(some)] == [(50, 8)]
    [row] = pack(some)
    assert row.num_tokens == 50 + 8 * 2
    # Two rows hold the context twice.
    assert [row.num_tokens for row in pack(some, token_budget=58)] == [58, 58]


def test_contexts_are_kept_apart():
    first, second = (tuple(range(a, a + 30)) for a in (0, 100))
    some = [TokenizedPrompt((*stem, 99), (5,)) for stem in (first, second, first, second)]
    assert [members for _, members in share_prefixes(some)] == [[0, 2], [1, 3]]


def test_a_single_sequence_needs_no_mask():
    [row] = pack([TokenizedPrompt((1, 2, 3), (4, 5))])
    assert row.is_plain
    assert row.input_ids.tolist() == [[1, 2, 3, 4]]
    assert row.predictors.tolist() == [2, 3]


def test_equal_prompts_share_their_whole_prefix():
    """Without a token of its own, the first target is predicted by the last shared token."""
    [row] = pack([TokenizedPrompt((1, 2, 3), (4,)), TokenizedPrompt((1, 2, 3), (5, 6))])
    assert row.input_ids.tolist() == [[1, 2, 3, 5]]
    assert row.predictors.tolist() == [2, 2, 3]
    assert row.targets.tolist() == [4, 5, 6]
    assert row.owners.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("some", "token_budget", "message"),
    [
        ([], 10, "no prompts to score"),
        ([TokenizedPrompt((1,), (2,))], 0, "token_budget is 0; give a positive number"),
    ],
)
def test_refusals(some, token_budget, message):
    with pytest.raises(UserError, match=message):
        pack(some, token_budget=token_budget)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_additive_mask_is_finite(dtype):
    mask = additive_mask(torch.tensor([[True, False]]), dtype)
    assert mask.dtype == dtype
    assert mask[0, 0] == 0
    assert mask[0, 1] == torch.finfo(dtype).min


def test_all_continuations_of_one_length_add_up_to_one(make_tokenizer, tiny_model):
    tokenizer = make_tokenizer("abcde")
    model = tiny_model(tokenizer=tokenizer)
    prefix = (1, 2, 3, 2, 1)
    some = [TokenizedPrompt(prefix, x) for x in itertools.product(range(6), repeat=3)]
    rows = pack(some, token_budget=128)
    assert len(rows) > 2
    with torch.no_grad():
        values = torch.cat([packed_logprobs(model, row) for row in rows])
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert float(values.max() - values.min()) > 1


@pytest.mark.parametrize("shared", [True, False], ids=["segments", "block mask"])
@settings(deadline=None, max_examples=25)
@given(some=prompts, token_budget=st.integers(1, 60), joined=st.integers(1, 90))
def test_values_are_those_of_the_plain_model(
    shared, some, token_budget, joined, tiny_model, plain_logprob
):
    model = tiny_model(seed=3)
    assert supports(model)
    rows = join(model, pack(some, token_budget=token_budget), joined)
    assert sorted(i for row in rows for i in row.members) == list(range(len(some)))
    for row in rows:
        with torch.no_grad(), mock.patch("passgrad.lm.logprobs.supports", return_value=shared):
            values = packed_logprobs(model, row)
        for value, member in zip(values, row.members, strict=True):
            expected = plain_logprob(model, some[member].prefix, some[member].target)
            assert float(value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("targets", [((0,), (0,)), ((0,), (3,)), ((0,), (1, 2), (0,))])
def test_sequences_may_end_at_the_same_token(targets, tiny_model, plain_logprob):
    """Answers of one token behind one prefix are read from the same place."""
    model, prefix = tiny_model(seed=3), (0, 1, 2, 3, 0, 1)
    [row] = pack([TokenizedPrompt(prefix, target) for target in targets])
    with torch.no_grad():
        values = packed_logprobs(model, row)
    for value, member in zip(values, row.members, strict=True):
        expected = plain_logprob(model, prefix, targets[member])
        assert float(value) == pytest.approx(expected, abs=1e-12)


def test_rows_are_joined_up_to_the_budget_and_in_order(tiny_model):
    some = [TokenizedPrompt((a, *range(20, 30)), (1,) * n) for a, n in enumerate((1, 2, 3, 9))]
    rows = pack(some)
    assert [row.num_tokens for row in rows] == [11, 12, 13, 19]
    joined = join(tiny_model(), rows, 25)
    assert [(row.num_tokens, row.members) for row in joined] == [
        (23, (0, 1)), (13, (2,)), (19, (3,)),
    ]  # fmt: skip
    assert join(tiny_model(), rows, 1) == rows
    assert len(join(tiny_model(), rows, 55)) == 1
    # A block mask over all of them would cost the square of the row.
    assert join(tiny_model("gptj"), rows, 55) == rows
    assert join(tiny_model(), [], 55) == []


def test_a_model_with_another_attention_gets_the_mask(tiny_model):
    model = tiny_model("gptj")
    assert not supports(model)
    [row] = pack([TokenizedPrompt((1, 2, 3, 4), (5, 6)), TokenizedPrompt((1, 2, 3, 7), (5,))])
    masks = []
    model.transformer.h[0].attn.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    packed_logprobs(model, row)
    assert masks[0].shape == (1, 1, row.num_tokens, row.num_tokens)


def test_low_precision_is_scored_in_float32(tiny_model):
    model = tiny_model("gpt2", dtype="bfloat16")
    [row] = pack([TokenizedPrompt((1, 2, 3, 4), (5, 6)), TokenizedPrompt((1, 2, 3, 7), (5,))])
    assert packed_logprobs(model, row).dtype == torch.float32


def test_other_parameters_take_the_place_of_the_models(tiny_model):
    model, other = tiny_model(seed=0), tiny_model(seed=1)
    [row] = pack([TokenizedPrompt((1, 2, 3, 4), (5, 6)), TokenizedPrompt((1, 2, 3, 7), (5,))])
    given_parameters = dict(other.named_parameters())
    assert "lm_head.weight" not in given_parameters  # tied: it must follow its owner
    with torch.no_grad():
        values = packed_logprobs(model, row, given_parameters)
        torch.testing.assert_close(values, packed_logprobs(other, row), atol=1e-12, rtol=0)
        assert (values - packed_logprobs(model, row)).abs().min() > 1e-3
