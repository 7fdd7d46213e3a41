"""Attention over a packed row: the values and slopes of the block mask, without its cost."""

from unittest import mock

import pytest
import torch

from passgrad.lm.attention import NAME, segmented, supports, tails_of
from passgrad.lm.logprobs import additive_mask, join, pack, packed_logprobs
from passgrad.lm.tokens import TokenizedPrompt

CONTEXT = tuple(i % 7 + 1 for i in range(20))
SOME = [
    TokenizedPrompt((*CONTEXT, *question), target)
    for question, target in [((8, 9), (1, 2, 3)), ((8,), (4,)), ((9, 9, 9), (5, 6)), ((2,), (7, 1))]
]
# Two prompts with tails of their own around one that stands alone.
OTHERS = [
    TokenizedPrompt((3, 4, 3, 4, 3, 4), (6, 5, 4, 3)),
    *(TokenizedPrompt((5,) * 9, target) for target in [(5, 1), (2, 2, 2), (1,)]),
]
ROWS = {"one segment": SOME, "several segments": SOME + OTHERS}


def one_row(model, some):
    [row] = join(model, pack(some), token_budget=1000)
    return row


def masked_logits(model, row):
    mask = additive_mask(row.visible()[None, None], model.dtype)
    return model(input_ids=row.input_ids, position_ids=row.position_ids, attention_mask=mask).logits


def test_tails_hold_each_token_once():
    tails = tails_of(3, [2, 0, 1, 4])
    assert tails.places.tolist() == [[3, 4, 4, 4], [5, 5, 5, 5], [6, 7, 8, 9]]
    assert tails.places.flatten()[tails.order].tolist() == list(range(3, 10))
    assert tails_of(3, [0, 0]) is None


@pytest.mark.parametrize("some", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gemma"])
def test_every_hidden_state_is_that_of_the_block_mask(tiny_model, architecture, some):
    model = tiny_model(architecture)
    assert supports(model)
    row = one_row(model, some)
    assert len(row.segments) == (1 if some is SOME else 3)
    with torch.no_grad():
        expected = masked_logits(model, row)
        with segmented(model, row.segments):
            ours = model(input_ids=row.input_ids, position_ids=row.position_ids).logits
        # Rows are not padded: there is no token whose value does not matter.
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)
        plain = model(input_ids=row.input_ids, position_ids=row.position_ids).logits
    assert (plain - expected).abs().max() > 1e-2


@pytest.mark.parametrize("some", ROWS.values(), ids=ROWS)
def test_slopes_are_those_of_the_block_mask(tiny_model, some):
    model = tiny_model()
    row = one_row(model, some)
    weights = torch.linspace(-1, 2, len(some), dtype=torch.float64)
    slopes = {}
    for shared in (True, False):
        with mock.patch("passgrad.lm.logprobs.supports", return_value=shared):
            value = weights @ packed_logprobs(model, row)
        slopes[shared] = torch.autograd.grad(value, list(model.parameters()))
    for ours, expected in zip(slopes[True], slopes[False], strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)


def test_the_model_is_left_as_it_was_also_after_an_error(tiny_model):
    model = tiny_model()
    [row] = pack(SOME)

    def fail():
        with segmented(model, row.segments):
            assert model.config._attn_implementation == NAME
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("num_prompts", [1, 3])
def test_no_product_is_made_for_what_is_masked(tiny_model, num_prompts):
    """The largest table of attention is a tail against prefix and tail, not the whole row."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny_model()
    many = [
        TokenizedPrompt((9 - x, *CONTEXT, 8 + i % 3), (i % 5 + 1,) * 6)
        for x in range(num_prompts)
        for i in range(32)
    ]
    row = one_row(model, many)
    assert len(row.segments) == num_prompts
    counted = {}
    for shared in (True, False):
        with (
            mock.patch("passgrad.lm.logprobs.supports", return_value=shared),
            sdpa_kernel(SDPBackend.MATH),  # whose products are counted
            FlopCounterMode(display=False) as counter,
            torch.no_grad(),
        ):
            packed_logprobs(model, row)
        counted[shared] = counter.get_total_flops()
    assert counted[True] < 0.6 * counted[False]
