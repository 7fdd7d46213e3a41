"""Text to tokens, with the boundaries kept: which tokens are prompt, which answer, which stop.

The success rate of a prompt with one accepted answer string is the probability of one token
sequence. That is true only when the tokens of the answer are the same whether the text is read in
one go or generated after the prompt; this module checks it and refuses a prompt for which it is
not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from passgrad.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizedPrompt:
    """One prompt as token ids: ``prefix`` is given, ``target`` is what a success generates.

    ``target`` is the answer followed by the stop token(s); the success rate of the prompt is
    the product of the conditional probabilities of its entries.
    """

    prefix: tuple[int, ...]
    target: tuple[int, ...]


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of ``text`` as the start of a sequence: what the tokenizer puts in front of one
    (mostly a begin token), once, and nothing that it puts behind.

    A text that was rendered from a chat template may have its begin token already.
    """
    ids = list(tokenizer(text)["input_ids"])
    bare = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    for place in range(len(ids) - len(bare) + 1 if bare else 0):
        if ids[place : place + len(bare)] == bare:
            front = ids[:place]
            while front and bare[: len(front)] == front:
                bare = bare[len(front) :]
            return front + bare
    # An empty text, or one that reads otherwise between marks.
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token or "\0"):
        ids.pop()
    return ids


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids. Ids that the tokenizer does not have are nothing: a model's embedding
    is often longer, and such a row may be drawn.
    """
    try:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))
    except (IndexError, KeyError, TypeError, OverflowError):  # of tokenizers that mind
        has = set(tokenizer.get_vocab().values())
        return str(tokenizer.decode([one for one in ids if one in has], skip_special_tokens=False))


def check_vocabulary(sequences: Iterable[Sequence[int]], size: int, name: str) -> None:
    """Refuse token ids that a model has no row of its embedding for.

    :param name: Of the model.
    :raises UserError: For a tokenizer with tokens that were added without resizing the model, where
        they are used.
    """
    largest = max((max(ids, default=0) for ids in sequences), default=0)
    if largest >= size:
        raise UserError(
            f"the tokenizer of {name} gives the token {largest}, and the model has {size}: it has "
            "tokens that were added without resizing the model; give prompts without them, or the "
            "tokenizer that the model was trained with"
        )


def single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The one token that this text is.

    :raises UserError: If it is none or several.
    """
    ids = stop_ids(tokenizer, text) if text else ()
    if len(ids) != 1:
        named = sorted(tokenizer.get_added_vocab(), key=lambda one: one != tokenizer.eos_token)
        raise UserError(
            f"the end token {text!r} is {len(ids)} tokens for this model; give one of a single "
            f"token{', such as ' + ', '.join(named[:4]) if named else ''}"
        )
    return int(ids[0])


def stop_ids(tokenizer: PreTrainedTokenizerBase, stop: str) -> tuple[int, ...]:
    """Token ids of the stop string behind an answer.

    They are read off behind a digit: SentencePiece tokenizers put a word mark before a text that
    stands alone. Where the digit merges with the stop, the stop on its own is taken.

    :raises UserError: If ``stop`` is empty.
    """
    if not stop:
        raise UserError(
            "stop is empty; name the string that ends an answer, for example stop='\\n'"
        )
    alone, digit, behind = (
        tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in (stop, "0", "0" + stop)
    )
    return behind[len(digit) :] if behind[: len(digit)] == digit else alone


def tokenize_prompt(
    tokenizer: PreTrainedTokenizerBase,
    context: str,
    question: str,
    answer: str,
    *,
    stop: str,
    name: str,
) -> TokenizedPrompt:
    """Tokens of ``context + question`` (given) and of ``answer + stop`` (to be generated).

    :param name: How an error refers to the prompt.
    :raises UserError: If the answer is empty, if its tokens merge with the question's last token or
        with the stop, or if a stop inside ``context + question`` is not the token that ends the
        answer. In each case the success rate would be near zero for a reason that has nothing to do
        with the model.
    """
    wanted = stop_ids(tokenizer, stop)
    if not answer:
        raise UserError(f"{name}: the answer is empty; give the one accepted answer string")
    if stop in answer:
        raise UserError(
            f"{name}: the answer {answer!r} contains the stop {stop!r}; use an answer without it"
        )
    prefix = encode(tokenizer, context + question)
    if not prefix:
        raise UserError(
            f"{name}: context and question are empty; "
            "a language model needs at least one token to start from"
        )
    with_answer = encode(tokenizer, context + question + answer)
    whole = encode(tokenizer, context + question + answer + stop)
    if with_answer[: len(prefix)] != prefix or len(with_answer) == len(prefix):
        raise UserError(
            f"{name}: the answer {answer!r} merges with the end of the question {question[-12:]!r} "
            "in this tokenizer; end the question (or start the answer) where a token ends, "
            "for example with '=' and no space"
        )
    if whole[: len(with_answer)] != with_answer or tuple(whole[len(with_answer) :]) != wanted:
        raise UserError(
            f"{name}: the stop {stop!r} merges with the answer {answer!r} in this tokenizer; "
            "choose a stop that stays a token of its own"
        )
    check_stops(tokenizer, context + question, stop=stop, name=name)
    return TokenizedPrompt(tuple(prefix), tuple(whole[len(prefix) :]))


def check_stops(tokenizer: PreTrainedTokenizerBase, text: str, *, stop: str, name: str) -> None:
    """Every ``stop`` inside the text must be the token(s) that also end an answer.

    :raises UserError: If one is not: worked examples would then end in a token that no completion
        is stopped by.
    """
    if stop not in text:
        return
    wanted = stop_ids(tokenizer, stop)
    if not tokenizer.is_fast:
        raise UserError(
            f"{name}: this tokenizer gives no character offsets; "
            "load the model with a fast tokenizer"
        )
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    start = text.find(stop)
    while start >= 0:
        end = start + len(stop)
        covering = [
            token for token, (a, b) in zip(ids, spans, strict=True) if a < end and b > start
        ]
        if tuple(covering) != wanted:
            pieces = tokenizer.convert_ids_to_tokens(covering)
            raise UserError(
                f"{name}: the stop {stop!r} at character {start} of the prompt is tokenised as "
                f"{pieces}, not as the token that ends the answer, so the examples teach another "
                "stop; change the text around it"
            )
        start = text.find(stop, end)
