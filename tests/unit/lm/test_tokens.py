"""Where a question ends, an answer starts and a stop stands."""

import pytest

from passgrad.errors import UserError
from passgrad.lm.tokens import check_stops, encode, stop_ids, tokenize_prompt


@pytest.fixture(scope="module")
def word_marks():
    """Like SentencePiece: a mark before a text that stands alone, and an end token behind it."""
    from tokenizers import Tokenizer, decoders, normalizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "▁", *"0123456789+=", "\n"]
    backend = Tokenizer(BPE({word: place for place, word in enumerate(words)}, []))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def texts(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


def test_prefix_and_target(tiny_tokenizer):
    made = tokenize_prompt(tiny_tokenizer, "a\n", "3+4=", "17", stop="\n", name="x")
    assert texts(tiny_tokenizer, made.prefix) == ["a", "\n", "3", "+", "4", "="]
    assert texts(tiny_tokenizer, made.target) == ["1", "7", "\n"]


def test_merges_inside_an_answer_are_no_trouble(tiny_tokenizer):
    made = tokenize_prompt(tiny_tokenizer, "", "3+9=", "12", stop="\n", name="x")
    assert texts(tiny_tokenizer, made.target) == ["12", "\n"]


def test_a_word_mark_and_an_end_token(word_marks):
    """The mark of a lone stop is not part of it, and the end token is not part of a prompt."""
    assert texts(word_marks, word_marks("\n", add_special_tokens=False)["input_ids"]) == ["▁", "\n"]
    assert texts(word_marks, stop_ids(word_marks, "\n")) == ["\n"]
    assert texts(word_marks, encode(word_marks, "1+1=")) == ["<s>", "▁", "1", "+", "1", "="]
    made = tokenize_prompt(word_marks, "1+1=2\n", "3+4=", "7", stop="\n", name="x")
    assert texts(word_marks, made.prefix)[-5:] == ["\n", "3", "+", "4", "="]
    assert texts(word_marks, made.target) == ["7", "\n"]


def test_an_end_token_that_was_written_stays(word_marks):
    assert texts(word_marks, encode(word_marks, "1</s>"))[-1] == "</s>"


def test_a_stop_of_several_tokens(tiny_tokenizer):
    made = tokenize_prompt(tiny_tokenizer, "q: 1+1=2 #\n", "3+4=", "7", stop=" #", name="x")
    assert texts(tiny_tokenizer, made.target) == ["7", " ", "#"]


@pytest.mark.parametrize(
    ("context", "question", "answer", "message"),
    [
        ("", "1+8=", "9", "the answer '9' merges with the end of the question '1[+]8='"),
        ("", "1+8=", "91", "the answer '91' merges with the end of the question '1[+]8='"),
        ("", "1", "2", "the answer '2' merges with the end of the question '1'"),
        ("", "4+4=", "8", r"the stop '\\n' merges with the answer '8'"),
        ("", "4+4=", "", "the answer is empty"),
        ("", "4+4=", "7\n", r"the answer '7\\n' contains the stop"),
        ("", "", "7", "context and question are empty"),
        ("a\n\n", "4+4=", "7", r"the stop '\\n' at character 1 of the prompt is tokenised as"),
        ("4+4=8\n", "3+3=", "6", r"the stop '\\n' at character 5 of the prompt is tokenised as"),
        ("ok\n4+4=8\n", "3+3=", "6", r"the stop '\\n' at character 8 of the prompt"),
    ],
)
def test_refusals_name_the_prompt(tiny_tokenizer, context, question, answer, message):
    with pytest.raises(UserError, match=f"^prompt 'p7': {message}") as caught:
        tokenize_prompt(tiny_tokenizer, context, question, answer, stop="\n", name="prompt 'p7'")
    assert "\n" not in str(caught.value)


def test_an_empty_stop_is_refused(tiny_tokenizer):
    with pytest.raises(UserError, match="stop is empty"):
        stop_ids(tiny_tokenizer, "")


def test_a_tokenizer_without_offsets_is_refused(tiny_tokenizer):
    class Slow:
        is_fast = False

        def __call__(self, *arguments, **options):
            return tiny_tokenizer(*arguments, **options)

    check_stops(Slow(), "no stop here", stop="\n", name="x")
    with pytest.raises(UserError, match="x: .* no character offsets; load the model with a fast"):
        check_stops(Slow(), "a\n", stop="\n", name="x")


def test_with_the_real_tokenizer(smollm2):
    _, tokenizer = smollm2
    made = tokenize_prompt(tokenizer, "base 10\n3+4=7\n", "4+8=", "12", stop="\n", name="x")
    assert tokenizer.decode(made.prefix) == "base 10\n3+4=7\n4+8="
    assert [tokenizer.decode([token]) for token in made.target] == ["1", "2", "\n"]
    with pytest.raises(UserError, match="answer .* merges with the end of the question"):
        tokenize_prompt(tokenizer, "", "The capital of France is Par", "is", stop="\n", name="x")
    with pytest.raises(UserError, match="at character 1 of the prompt is tokenised as"):
        check_stops(tokenizer, "a\n\nQuestion: 1+1=2", stop="\n\n", name="x")
