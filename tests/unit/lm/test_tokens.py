"""Where a question ends, an answer starts and a stop stands."""

import pytest

from passgrad.errors import UserError
from passgrad.lm.tokens import (
    check_stops,
    decode,
    encode,
    single_token,
    stop_ids,
    tokenize_prompt,
)


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


WORDS = ("<eos>", "<bos>", "[gMASK]", "<sop>", "a", "b", "c")


def marked(front=(), behind=(), words=WORDS):
    """A tokenizer that puts these tokens in front of a text and behind it."""
    from tokenizers import AddedToken, Tokenizer, decoders, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    places = {word: place for place, word in enumerate(words)}
    backend = Tokenizer(BPE(places, []))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(word, special=True) for word in words[:4]])
    if front or behind:
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join([*front, "$A", *behind]),
            special_tokens=[(word, places[word]) for word in {*front, *behind}],
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>")


@pytest.mark.parametrize(
    ("front", "behind", "text", "wanted"),
    [
        (["<bos>"], [], "abc", "<bos> a b c"),
        (["<bos>"], [], "<bos>abc", "<bos> a b c"),  # rendered from a chat template
        (["<bos>"], [], "<bos><bos>abc", "<bos> a b c"),
        (["<bos>"], [], "abc<bos>", "<bos> a b c <bos>"),  # a template that ends in it
        (["<bos>"], [], "<bos>", "<bos>"),
        (["<bos>"], ["<eos>"], "<bos>a<eos>", "<bos> a <eos>"),  # the one that was written
        (["<bos>"], ["<eos>"], "ab", "<bos> a b"),
        (["<bos>"], ["<bos>"], "<bos>a", "<bos> a"),
        ([], ["<eos>"], "ab", "a b"),
        ([], ["<eos>"], "<bos>ab", "<bos> a b"),
        ([], [], "<bos>ab", "<bos> a b"),
        ([], [], "ab", "a b"),
        (["[gMASK]", "<sop>"], [], "ab", "[gMASK] <sop> a b"),
        (["[gMASK]", "<sop>"], [], "[gMASK]<sop>ab", "[gMASK] <sop> a b"),
        (["<bos>"], [], "", "<bos>"),
        (["<bos>"], ["<eos>"], "", "<bos>"),
    ],
)
def test_what_stands_in_front_stands_there_once(front, behind, text, wanted):
    tokenizer = marked(front, behind)
    assert texts(tokenizer, encode(tokenizer, text)) == wanted.split()


@pytest.mark.parametrize("adds", [True, False])
def test_the_flag_of_a_tokenizer_is_followed(adds, tmp_path):
    """``add_bos_token`` of tokenizer_config.json, where the file of the tokenizer has no mark."""
    from passgrad.rollouts.sampling import prompt_tokens
    from passgrad.tasks.base import Prompt, Task, exact_match

    tokenizer = marked(["<bos>"] if adds else [])
    tokenizer.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(tmp_path)
    task = Task("t", (Prompt("", "<bos>a", "a"), Prompt("", "a", "a")), exact_match, None, 1)
    begin = again.bos_token_id
    assert [ids.count(begin) for ids in prompt_tokens(again, task)] == [1, int(adds)]


def test_ids_that_are_no_tokens_are_read_as_nothing():
    tokenizer = marked()
    assert decode(tokenizer, [4, 99, 5]) == "ab"

    class Strict:
        """As tokenizers in Python, which look an id up in a list."""

        def get_vocab(self):
            return {"a": 0, "b": 1}

        def decode(self, ids, **options):
            return "".join("ab"[one] for one in ids)

    assert decode(Strict(), [0, 99, 1]) == "ab"


def test_an_end_token_is_one_token():
    tokenizer = marked()
    assert single_token(tokenizer, "<eos>") == 0
    for text, number in (("ab", 2), ("", 0)):
        with pytest.raises(UserError, match=f"'{text}' is {number} tokens .* such as <eos>, "):
            single_token(tokenizer, text)
