"""Token ids of completions that a log has as text, and the end token where one belongs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from passgrad.errors import UserError
from passgrad.lm.models import closing_token
from passgrad.lm.tokens import decode, encode, stop_ids
from passgrad.rollouts.foreign_logs import MODEL_END, Log, RetokenisedWarning, Sample
from passgrad.rollouts.readers.values import clean, refuse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CUT = ("length", "broken")
# From this length on, completions that are as long as the longest look cut off.
_LONG = 32


@dataclass
class _Doubts:
    """Samples of which something was guessed, and texts that were read before."""

    remade: list[Sample] = field(default_factory=list)
    ambiguous: list[Sample] = field(default_factory=list)
    assumed: list[Sample] = field(default_factory=list)
    completed: list[Sample] = field(default_factory=list)
    broken: list[Sample] = field(default_factory=list)
    prompts: list[Sample] = field(default_factory=list)
    texts: dict[tuple[int, ...], str] = field(default_factory=dict)


def complete_tokens(log: Log, samples: list[Sample], max_new_tokens: int | None) -> None:
    """Token ids where they are missing, and text where that is; the end token behind completions
    that the model ended, and behind no other.

    :param max_new_tokens: Where completions were cut off, if the log does not say which were.
    :raises UserError: For a completion without text and tokens, and one whose end is not known.
    """
    tokenizer, stop = log.tokenizer, log.stop
    if stop is None and not log.ends:
        raise UserError(
            f"{log.name}: the tokenizer has no end token; name by --stop (stop=) what ended a "
            "completion"
        )
    closing = closing_token(tokenizer)
    mark = None if closing not in log.ends or closing is None else decode(tokenizer, [closing])
    stop_tokens = () if stop is None else stop_ids(tokenizer, stop)
    doubts = _Doubts()
    prefixes: dict[str, list[int]] = {}
    for sample in samples:
        if not sample.prompt:
            refuse(sample.where, "the prompt is empty; give what the model continued")
        prefix = prefixes.setdefault(sample.prompt, [])
        if not prefix:
            prefix += encode(tokenizer, sample.prompt)
        if sample.prompt_ids is not None and sample.prompt_ids != prefix:
            doubts.prompts.append(sample)
        # A turn of a chat ends with the token that its template closes turns with.
        turn = mark is not None and mark in sample.prompt
        end = log.ends[0] if log.ends else None
        model_end = closing if turn else end
        ends = stop_tokens or (() if model_end is None else (model_end,))
        if sample.ended_by == MODEL_END:
            if model_end is None:
                refuse(sample.where, "it ended at an end token, and the tokenizer has none")
            sample.ended_by = model_end
        if sample.completion is not None:
            clean(sample.completion, sample.where, "completion")
        if sample.ids is None:
            _make(sample, prefix, tokenizer, stop, ends, max_new_tokens, doubts)
        else:
            _check(sample, log, ends, doubts)
        if not sample.ids:
            refuse(sample.where, "a completion without tokens; take it out")
        if sample.state == "broken":
            doubts.broken.append(sample)
        sample.state = "length" if sample.state in _CUT else "stop"
    texts = _said(len(samples), doubts)
    if texts:
        log.doubt("; ".join(texts), RetokenisedWarning)


def _make(
    sample: Sample,
    prefix: list[int],
    tokenizer: PreTrainedTokenizerBase,
    stop: str | None,
    ends: tuple[int, ...],
    max_new_tokens: int | None,
    doubts: _Doubts,
) -> None:
    """Tokens from text."""
    if sample.completion is None:
        refuse(sample.where, "no completion; give its text or its token ids")
    if "\0" in sample.completion:
        refuse(sample.where, "the completion holds a null character; give its token ids")
    if sample.state == "tools":
        refuse(
            sample.where,
            "the completion ended with a call of a tool, which is not in its text; give its token "
            "ids",
        )
    token_ids, clear = retokenise(tokenizer, sample.prompt, sample.completion, prefix)
    doubts.remade.append(sample)
    if not clear:
        doubts.ambiguous.append(sample)
    limit = sample.law.get("max_new_tokens") or max_new_tokens
    if sample.state is None:
        if limit is None:
            doubts.assumed.append(sample)
        sample.state = "length" if limit is not None and len(token_ids) >= limit else "stop"
    end = () if sample.state in _CUT else _end(sample, tokenizer, stop, ends)
    sample.ids = [*token_ids, *end]


def _end(
    sample: Sample, tokenizer: PreTrainedTokenizerBase, stop: str | None, ends: tuple[int, ...]
) -> tuple[int, ...]:
    """The tokens that ended a completion."""
    if isinstance(sample.ended_by, str) and sample.ended_by != (tokenizer.eos_token or ""):
        if sample.ended_by != stop:
            refuse(
                sample.where,
                f"it ended at {sample.ended_by!r}; say so by --stop (stop=), and give samples that "
                "end alike",
            )
        return ends
    if isinstance(sample.ended_by, int):
        if not 0 <= sample.ended_by < len(tokenizer):
            refuse(
                sample.where, f"the token {sample.ended_by} that ended it is not the tokenizer's"
            )
        return (sample.ended_by,)
    if sample.state == "string" and stop is None:
        refuse(sample.where, "it ended at a stop string; name it by --stop (stop=)")
    return ends


def _check(sample: Sample, log: Log, ends: tuple[int, ...], doubts: _Doubts) -> None:
    """Tokens that the log has, and their text."""
    tokenizer, stop = log.tokenizer, log.stop
    token_ids = sample.ids
    assert token_ids is not None
    size = max(len(tokenizer), log.vocabulary)
    if token_ids and not (min(token_ids) >= 0 and max(token_ids) < size):
        refuse(
            sample.where,
            f"a token id is outside the tokenizer's {size}; "
            "give the model that the samples were drawn from",
        )
    ended = bool(token_ids) and tuple(token_ids[-len(ends) :]) == ends
    length = len(ends) if ended else 0
    if token_ids and not ended and sample.state in ("stop", "string", "tools", None):
        # Another end token than the one that is known here, such as that of a turn.
        ended = token_ids[-1] in (*log.ends, *tokenizer.all_special_ids)
        length = int(ended)
    if sample.state is None:
        sample.state = "stop" if ended else "length"
    elif not ended and token_ids and sample.state not in _CUT:
        text = decode(tokenizer, token_ids)
        if not (isinstance(sample.ended_by, str) and text.endswith(sample.ended_by)):
            if sample.completion is None:
                sample.completion = text
            sample.ids = [*token_ids, *_end(sample, tokenizer, stop, ends)]
            doubts.completed.append(sample)
    if sample.completion is None:
        body = tuple(token_ids[: len(token_ids) - length])
        if body not in doubts.texts:
            doubts.texts[body] = decode(tokenizer, body)
        sample.completion = doubts.texts[body]


def _said(total: int, doubts: _Doubts) -> list[str]:
    """The doubts in words."""
    texts = []
    if doubts.remade:
        texts.append(
            f"{len(doubts.remade)} of {total} completions have no token ids and were tokenised "
            "again, which gives other tokens where the model drew a rare spelling"
        )
    if doubts.ambiguous:
        texts.append(
            f"{len(doubts.ambiguous)} are ambiguous, since they merge with the prompt, do not read "
            "back as the same text, or spell a special token; first: "
            f"{doubts.ambiguous[0].where}"
        )
    if doubts.assumed:
        texts.append(
            f"{len(doubts.assumed)} do not say why they ended and get an end token; "
            f"--max-new-tokens (max_new_tokens=) tells which were cut off{_longest(doubts.assumed)}"
        )
    if doubts.completed:
        texts.append(
            f"the token ids of {len(doubts.completed)} lack the end token that their state "
            f"promises, and got it; first: {doubts.completed[0].where}"
        )
    if doubts.broken:
        texts.append(
            f"{len(doubts.broken)} were broken off (aborted, filtered or failed) and have no end "
            f"token; first: {doubts.broken[0].where}"
        )
    if doubts.prompts:
        texts.append(
            f"the prompts of {len(doubts.prompts)} were other tokens for the engine than they are "
            f"here; first: {doubts.prompts[0].where}"
        )
    return texts


def _longest(samples: Sequence[Sample]) -> str:
    """A hint where several completions are as long as the longest, which a limit does."""
    lengths = Counter(len(sample.ids or ()) - 1 for sample in samples)
    length = max(lengths)
    if length < _LONG or lengths[length] < 2:
        return ""
    return f" ({lengths[length]} have {length} tokens and none more, as if cut off there)"


def retokenise(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    completion: str,
    prefix: Sequence[int] | None = None,
) -> tuple[list[int], bool]:
    """(ids, clear): tokens of the completion behind its prompt, and whether no other reading is in
    sight.

    It is not clear if the last token of the prompt would merge with the completion (the completion
    is then tokenised alone), if the tokens do not read back as the same text, or if one is special.
    """
    prefix = encode(tokenizer, prompt) if prefix is None else list(prefix)
    whole = encode(tokenizer, prompt + completion)
    special = set(tokenizer.all_special_ids)
    if whole[: len(prefix)] != prefix:
        alone = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
        return alone, False
    token_ids = whole[len(prefix) :]

    def read(tokens: Sequence[int]) -> str:
        return str(
            tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    clear = read(whole) == read(prefix) + completion and not special & set(token_ids)
    return token_ids, clear
