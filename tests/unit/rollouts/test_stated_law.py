"""Engines draw from the law that is stated, whatever a model's folder says about generation."""

import json

import pytest
import torch
from scipy.stats import chisquare

from passgrad.errors import UserError
from passgrad.lm.models import load_model, save_model
from passgrad.lm.tokens import encode
from passgrad.rollouts.sampling import sample
from passgrad.tasks.base import Prompt, Task, exact_match

TASK = Task(
    "t", (Prompt("", "abab=", "a", "", "one"), Prompt("", "aabb=ab=", "b", "", "two")),
    exact_match, "\n", 8,
)  # fmt: skip

#: a value that would change what is drawn, or end the drawing, for each field that has one
HOSTILE = {
    "max_length": 6, "max_new_tokens": 1, "min_length": 12, "min_new_tokens": 6,
    "early_stopping": True, "max_time": 0.0, "stop_strings": ["a"], "do_sample": False,
    "num_beams": 3, "use_cache": False, "cache_implementation": "static", "cache_config": {},
    "temperature": 0.2, "top_k": 2, "top_p": 0.3, "min_p": 0.5, "top_h": 0.2, "typical_p": 0.3,
    "epsilon_cutoff": 0.3, "eta_cutoff": 0.3, "diversity_penalty": 1.5, "num_beam_groups": 3,
    "repetition_penalty": 3.0, "encoder_repetition_penalty": 3.0, "length_penalty": 5.0,
    "no_repeat_ngram_size": 1, "encoder_no_repeat_ngram_size": 1, "bad_words_ids": [[1], [2]],
    "renormalize_logits": True, "forced_bos_token_id": 2, "forced_eos_token_id": 4,
    "remove_invalid_values": True, "exponential_decay_length_penalty": [0, 3.0],
    "suppress_tokens": [1, 2], "begin_suppress_tokens": [1, 2], "sequence_bias": [[[1], -9.0]],
    "token_healing": True, "guidance_scale": 3.0, "watermarking_config": {"bias": 9.0},
    "num_return_sequences": 3, "output_attentions": True, "output_hidden_states": True,
    "output_scores": True, "output_logits": True, "return_dict_in_generate": True,
    "pad_token_id": 2, "bos_token_id": 3, "eos_token_id": 1, "decoder_start_token_id": 2,
    "is_assistant": True, "num_assistant_tokens": 3, "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.1, "prompt_lookup_num_tokens": 2,
    "max_matching_ngram_size": 2, "assistant_early_exit": 1, "assistant_lookbehind": 2,
    "target_lookbehind": 2, "compile_config": {}, "disable_compile": True,
    "prefill_chunk_size": 2, "low_memory": True, "penalty_alpha": 0.6, "dola_layers": "high",
    "constraints": [], "force_words_ids": [[[1]]],
}  # fmt: skip


def fields():
    from transformers import GenerationConfig

    aside = {"_from_model_config", "transformers_version", "generation_kwargs"}
    return sorted((set(vars(GenerationConfig())) | set(HOSTILE)) - aside)


@pytest.fixture(scope="module")
def folder(make_tokenizer, tiny_model, tmp_path_factory):
    tokenizer = make_tokenizer("ab=\n")
    model = tiny_model(tokenizer=tokenizer, dtype="float32")
    return save_model(model, tokenizer, tmp_path_factory.mktemp("law") / "model")


@pytest.fixture
def asks(folder):
    """The folder with a generation config."""
    file = folder / "generation_config.json"

    def write(text):
        file.write_text(text)
        return folder

    yield write
    file.unlink()


def draws(folder, number=24):
    drawn = sample(folder, TASK, num_samples=number, engine="transformers")
    return drawn.table["completion_ids"].to_pylist()


@pytest.fixture(scope="module")
def plain(folder):
    (folder / "generation_config.json").unlink()
    return draws(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("field", fields())
def test_no_field_of_the_generation_config_enters(field, plain, asks):
    assert draws(asks(json.dumps({field: HOSTILE.get(field, 7)}))) == plain


@pytest.mark.filterwarnings("ignore")
def test_nor_do_all_fields_together(plain, asks):
    assert draws(asks(json.dumps({field: HOSTILE.get(field, 7) for field in fields()}))) == plain


@pytest.mark.filterwarnings("ignore")
def test_nor_does_the_model_config(folder, plain):
    """Where older models keep how they generate."""
    file = folder / "config.json"
    kept = file.read_text()
    asks = {"repetition_penalty": 3.0, "temperature": 0.2, "do_sample": False, "top_k": 2}
    file.write_text(json.dumps(json.loads(kept) | asks | {"max_length": 3, "num_beams": 2}))
    try:
        assert draws(folder) == plain
    finally:
        file.write_text(kept)


def test_first_tokens_have_the_frequencies_of_the_model(asks):
    """Under the stated law, where the folder asks for another."""
    place = asks(json.dumps({"temperature": 0.5, "top_k": 3, "repetition_penalty": 1.5}))
    model, tokenizer = load_model(place)
    number = 1500
    drawn = sample(place, TASK, num_samples=number, engine="transformers").table.to_pylist()
    for prompt in TASK.prompts:
        first = [row["completion_ids"][0] for row in drawn if row["prompt_id"] == prompt.id]
        with torch.no_grad():
            ids = torch.tensor([encode(tokenizer, prompt.text)])
            law = model(input_ids=ids).logits[0, -1].double().softmax(0)
        counts = torch.bincount(torch.tensor(first), minlength=len(law)).double()
        common = law * number >= 5
        observed = [*counts[common].tolist(), float(counts[~common].sum())]
        expected = [*(number * law[common]).tolist(), float(number * law[~common].sum())]
        if expected[-1] < 5:
            observed[-2:], expected[-2:] = [sum(observed[-2:])], [sum(expected[-2:])]
        assert len(expected) > 2
        assert chisquare(observed, expected).pvalue > 1e-5


def test_progress_within_a_batch(folder, monkeypatch):
    advanced = []

    class Told:
        def stage(self, name, total):
            advanced.clear()
            self.total = total

        def advance(self, amount=1):
            advanced.append(amount)

        def note(self, text):
            raise AssertionError

    told = Told()
    sample(folder, TASK, num_samples=24, engine="transformers", progress=told)
    assert sum(advanced) == pytest.approx(told.total) == pytest.approx(48)
    assert len(advanced) > 8
    assert min(advanced) >= 0


# --- ids between the sizes of the tokenizer and of the model


def test_rows_of_the_embedding_without_a_token(make_tokenizer, tiny_model, tmp_path):
    """They are drawn as often as the model says, kept as ids, and read as nothing."""
    tokenizer = make_tokenizer("ab=\n")
    model = tiny_model(tokenizer=make_tokenizer("ab=\ncdefghij"), dtype="float32")
    assert model.config.vocab_size > len(tokenizer) + 5
    place = save_model(model, tokenizer, tmp_path / "model")
    rows = sample(place, TASK, num_samples=64, engine="transformers").table.to_pylist()
    beyond = [row for row in rows if max(row["completion_ids"]) >= len(tokenizer)]
    assert beyond
    for row in beyond:
        kept = [one for one in row["completion_ids"] if 0 <= one < len(tokenizer)]
        assert row["completion"] == tokenizer.decode(kept).removesuffix("\n")
        assert row["logprob"] < 0


def test_a_tokenizer_that_is_larger_than_the_model(make_tokenizer, tiny_model, tmp_path):
    small = make_tokenizer("ab=\n")
    large = make_tokenizer("ab=\ncd")
    place = save_model(tiny_model(tokenizer=small, dtype="float32"), large, tmp_path / "model")
    assert sample(place, TASK, num_samples=2, engine="transformers")
    task = Task("t", (Prompt("", "abcd", "a", "", "one"),), exact_match, "\n", 4)
    with pytest.raises(UserError, match=r"gives the token 6, and the model has 5: .*resizing"):
        sample(place, task, num_samples=2, engine="transformers")
    from passgrad.worlds.language import LanguageWorld

    with pytest.raises(UserError, match=r"of this world gives the token 6, and the model has 5"):
        LanguageWorld(load_model(place)[0], large, task.prompts)


# --- models whose states from token to token are not those of a plain pass


def other_model(name, tokenizer, place, **sizes):
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=0, **sizes
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.3)
    return save_model(model, tokenizer, place)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "sizes", "cached"),
    [
        ("Rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}, False),
        (
            "Mistral",
            {
                "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48,
                "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 4,
            },
            True,
        ),
    ],
)  # fmt: skip
def test_each_step_has_the_law_of_a_plain_pass(
    name, sizes, cached, make_tokenizer, tmp_path, monkeypatch
):
    """Padding and states are used where they are right, and left out where not."""
    from transformers import GenerationMixin

    place = other_model(name, make_tokenizer("ab=\n"), tmp_path / "model", **sizes)
    lengths, asked, gaps = [], [], []
    original = GenerationMixin.generate

    def generate(self, input_ids, attention_mask, generation_config, **options):
        generation_config.output_logits = generation_config.return_dict_in_generate = True
        made = original(
            self, input_ids=input_ids, attention_mask=attention_mask,
            generation_config=generation_config, **options,
        )  # fmt: skip
        if "stopping_criteria" not in options:
            return made
        asked.append(generation_config.use_cache)
        lengths.append(set(attention_mask.sum(-1).tolist()))
        kept = torch.stack(made.logits, 1)
        for ids, mask, logits in zip(made.sequences, attention_mask, kept, strict=True):
            first = int((1 - mask).sum())
            plain = self(input_ids=ids[None, first:-1], use_cache=False).logits[0]
            plain = plain[input_ids.shape[1] - first - 1 :]
            gaps.append(float((logits.log_softmax(-1) - plain.log_softmax(-1)).abs().max()))
        return made.sequences

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    draws(place, 4)
    assert set(asked) == {cached}
    # Prompts of several lengths share a batch where padding changes nothing.
    assert lengths == ([{5, 8}] if cached else [{5}, {8}])
    assert len(gaps) == 8
    assert max(gaps) < 1e-3
