"""Rows are packed where that gives what plain passes give, and only there."""

from dataclasses import replace

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm import packing as module
from passgrad.lm.attention import carries_state
from passgrad.lm.logprobs import alone, join, pack, packed_logprobs
from passgrad.lm.packing import choose_packing
from passgrad.lm.tokens import TokenizedPrompt
from passgrad_book.architectures.families import tiny

SHARED = tuple(range(20, 32))
#: the longest is behind all others of its prompt, and in no fullest row
SOME = [
    TokenizedPrompt((*SHARED, 3), (4, 5, 6)),
    TokenizedPrompt((*SHARED, 3), (4,)),
    TokenizedPrompt((*SHARED, 3, 7), (9, 9)),
    TokenizedPrompt((8, 9), (1, 2)),
    TokenizedPrompt((8, 9), (3,)),
    TokenizedPrompt((8, 9), tuple(range(40, 75))),
]


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("budget", [20, 60, 1000])
@pytest.mark.parametrize("kind", ["lfm2", "granitemoehybrid", "mamba", "llama"])
def test_rows_of_a_model_with_a_state_are_taken_apart(kind, budget):
    model = tiny(kind)
    rows = join(model, pack(SOME, token_budget=budget), budget)
    assert carries_state(model) == (kind != "llama") == all(row.is_plain for row in rows)
    with torch.no_grad():
        found = {
            m: v
            for row in rows
            for m, v in zip(row.members, packed_logprobs(model, row).tolist(), strict=True)
        }
        expected = [float(packed_logprobs(model, row)[0]) for row in alone(SOME)]  # fmt: skip
    assert [found[i] for i in range(len(SOME))] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("budget", [20, 60, 1000])
def test_a_window_that_only_the_longest_sequence_reaches(tiny_model, monkeypatch, budget):
    """Whatever the budget, it is compared, though it may be alone in its row."""
    model = tiny("mistral")
    model.config.sliding_window = 20
    rows = join(model, pack(SOME, token_budget=budget), budget)
    assert choose_packing(model, SOME, rows).packed
    drop_windows(monkeypatch)
    packing = choose_packing(model, SOME, rows)
    assert not packing.packed
    assert packing.gap > 0.01
    assert packing.reason.startswith("MistralForCausalLM gives log p = ")
    with pytest.raises(UserError, match="rows cannot be packed: .*; leave packed at 'auto'"):
        choose_packing(model, SOME, rows, True)
    assert str(choose_packing(model, SOME, rows, False)).endswith("because it was asked for")


def drop_windows(monkeypatch):
    monkeypatch.setattr("passgrad.lm.attention._table", lambda *given: None)


def test_what_leaks_into_any_member_is_seen(tiny_model, monkeypatch):
    """The first answer of a row is right by chance, where a state runs on."""
    model = tiny_model(dtype="float32")
    rows = pack(SOME)
    right = packed_logprobs

    def leaking(model, row, parameters=None):
        values = right(model, row, parameters)
        return values if row.is_plain else torch.cat([values[:1], values[1:] + 0.01])

    monkeypatch.setattr(module, "packed_logprobs", leaking)
    assert not choose_packing(model, SOME, rows).packed


def test_a_lack_of_memory_is_no_reason(tiny_model, monkeypatch):
    def full(*given):
        raise RuntimeError("can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(module, "packed_logprobs", full)
    with pytest.raises(RuntimeError, match="memory"):
        choose_packing(tiny_model(), SOME, pack(SOME))


def test_nothing_to_compare(tiny_model):
    some = [SOME[0], SOME[3]]
    packing = choose_packing(tiny_model(), some, alone(some))
    assert (packing.packed, packing.compared) == (True, 0)
    assert "none holds two sequences" in str(packing)
    assert replace(packing, gap=float("nan")).record()["gap"] is None
