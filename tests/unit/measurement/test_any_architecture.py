"""A measurement of models with windows, states, experts and sinks: the same for every token budget,
and refused before anything is drawn where there is none.
"""

import numpy as np
import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.models import load_model, save_model
from passgrad.measurement.run import measure
from passgrad.rollouts import transformers_engine
from passgrad.tasks.base import Prompt, Task
from passgrad_book.architectures.families import tiny

# Beyond a window of 8 and within it.
PROMPTS = tuple(
    Prompt("", question, "a", "x", str(i))
    for i, question in enumerate(["ab=", "ba=", "abababababababab=", "b=", "aabbaabbaabbaabb="])
)


def judged(text, prompt):
    return sum(map(ord, text)) % 2 == 0


TASK = Task("tiny", PROMPTS, judged, None, 5)


def saved(model, tokenizer, folder):
    save_model(model, tokenizer, folder)
    return folder


def options(**changes):
    common = {"samples": 6, "ks": [1, 2], "engine": "transformers", "reading": "fixed"}
    return common | {"parts": False, "step": False} | changes


@pytest.mark.usefixtures("tiny_model")
@pytest.mark.parametrize("kind", ["mistral", "gpt_oss", "lfm2", "mixtral", "bloom"])
def test_the_token_budget_changes_no_number(kind, make_tokenizer, tmp_path):
    tokenizer = make_tokenizer("ab=\n")
    place = saved(tiny(kind, vocab=len(tokenizer)), tokenizer, tmp_path / "model")
    whole, small = (
        measure(place, TASK, out=tmp_path / str(budget), token_budget=budget, **options())
        for budget in (1024, 24)
    )
    np.testing.assert_allclose(
        whole.estimate.inner_product, small.estimate.inner_product, rtol=2e-5
    )
    assert whole.rollouts.table.equals(small.rollouts.table)
    packing = whole.record["packing"]
    assert packing["packed"] == (kind in ("mistral", "gpt_oss", "mixtral"))
    said = [remark for remark in whole.remarks if "one sequence a row" in remark]
    assert len(said) == (not packing["packed"])
    assert whole.record["law"]["gap"] < 1e-5


def test_no_causal_model_is_refused_before_drawing(make_tokenizer, tmp_path, monkeypatch):
    from transformers import BertConfig, BertLMHeadModel

    tokenizer = make_tokenizer("ab=\n")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        place = saved(BertLMHeadModel(config), tokenizer, tmp_path / "model")
    monkeypatch.setattr("passgrad.measurement.drawing.sample", None)
    with pytest.raises(UserError, match="BertLMHeadModel is no causal language model"):
        measure(place, TASK, out=tmp_path / "out", **options())


def test_a_wrong_column_is_noticed(make_tokenizer, tiny_model, tmp_path, monkeypatch):
    """Of completions that this process drew itself."""
    tokenizer = make_tokenizer("ab=\n")
    place = saved(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, tmp_path / "model")
    right = transformers_engine.scores

    def wrong(*given):
        for table in right(*given):
            yield {ids: value - 2 * len(ids) for ids, value in table.items()}

    monkeypatch.setattr(transformers_engine, "scores", wrong)
    with pytest.raises(UserError, match="not from this model: log-probabilities 2.000 nats"):
        measure(place, TASK, out=tmp_path / "out", **options())


def test_caps_of_attention_are_honoured(make_tokenizer, tmp_path):
    """Of a model that transformers would run without them."""
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer("ab=\n")
    place = saved(tiny("gemma2", vocab=len(tokenizer)), tokenizer, tmp_path / "model")
    ids = torch.tensor([[1, 2, 3, 1, 2, 3, 2, 1, 1, 3]])
    model, _ = load_model(place)
    plain = AutoModelForCausalLM.from_pretrained(place)
    assert plain.config._attn_implementation == "sdpa"
    eager = AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager")
    ours, without, capped = (one(input_ids=ids).logits.detach() for one in (model, plain, eager))
    torch.testing.assert_close(ours, capped)
    assert (ours - without).abs().max() > 1e-3
