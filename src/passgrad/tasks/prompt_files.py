"""Prompts that a user brings as a file, and the tasks that have a name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.errors import UserError
from passgrad.tasks.arithmetic import arithmetic
from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.conventions import conventions
from passgrad.tasks.counting import counting
from passgrad.tasks.gsm8k import gsm8k
from passgrad.tasks.json_lines import Line, kind_of, parse
from passgrad.tasks.repeats import Repeats
from passgrad.tasks.tables import TextRow, read_table
from passgrad.tasks.verifiers import Verifier, check_gym_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: the columns of a file of prompts; of the first two exactly one in each row
COLUMNS = ("prompt", "messages", "answer", "id", "group")
#: other names of ``answer``, as training programs have them
ANSWERS = ("answer", "ground_truth", "solution")

#: what a named task is made by; ``gym:NAME`` is :func:`gym`
TASKS: Mapping[str, Callable[..., Task]] = {
    "conventions": conventions,
    "arithmetic": arithmetic,
    "counting": counting,
    "gsm8k": gsm8k,
}

_ROLES = "system, user, assistant or tool"


def read_prompts(
    path: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    verifier: str | Callable[[str, str], Any] | Verifier = "exact",
    stop: str | None = None,
    max_new_tokens: int = 512,
) -> Task:
    """A task from a file with a row a prompt: JSON lines, a JSON array, CSV or parquet, plain or
    compressed.

    ``prompt``: the text that the model continues; or ``messages``: a chat, a list of objects with
    ``role`` and ``content``, rendered by the tokenizer's chat template with the opening of the
    model's turn at its end; a list under ``prompt`` is one too. ``answer`` (or ``ground_truth``, or
    ``solution``): the reference, text or a number. ``id``: distinct; the number of the row stands
    in for it. ``group``: the kind of prompt. verl's data sets are read as they are: ``prompt``,
    ``reward_model`` with ``ground_truth``, ``data_source`` as the group.

    Rows with the same prompt and the same answer are one prompt
    (:class:`passgrad.tasks.repeats.RepeatedPromptsWarning`).

    :param tokenizer: The model's; needed for ``messages``.
    :param verifier: A name or function as for :class:`passgrad.tasks.verifiers.Verifier`, or one.
    :param stop: Ends a completion; None leaves that to the model's end token.
    :raises UserError: In one line with file, row and remedy: for a missing, damaged or empty file,
        bytes that are no UTF-8, malformed JSON, missing, empty or unknown columns, a value of
        another type, an id that stands twice, a prompt with two answers, a chat without a template
        for it.
    """
    path = Path(path)
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; give at least 1")
    repeats = Repeats()
    for at, row in read_table(path):
        repeats.add(_prompt(row, at, tokenizer), at)
    if not repeats.prompts:
        raise UserError(
            f"{path}, line 1: the file has no prompts; write one JSON object a line with prompt "
            "and answer"
        )
    repeats.warn(str(path))
    judge = verifier if isinstance(verifier, Verifier) else Verifier(verifier)
    return Task(path.stem, tuple(repeats.prompts), judge, stop, max_new_tokens)


def render_chat(
    tokenizer: PreTrainedTokenizerBase | None, messages: Any, *, name: str, **template: Any
) -> str:
    """The text of a chat before the model's next turn.

    A begin token that the tokenizer adds by itself is left out, so that it does not stand twice.

    :param name: How an error refers to the chat.
    :param template: What the template is called with besides: ``tools``, ``enable_thinking``.
    :raises UserError: For a tokenizer without a chat template or no tokenizer, for messages that
        are not objects with role and content, an assistant's turn at the end, or a chat that the
        template refuses.
    """
    if tokenizer is None:
        raise UserError(
            f"{name}: messages need the model's chat template, and no tokenizer was given; "
            "pass tokenizer=, or write the text as prompt"
        )
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"{name}: the model's tokenizer has no chat template; write the text as prompt, or use "
            "a model tuned for chat"
        )
    if not isinstance(messages, list) or not messages:
        raise UserError(
            f"{name}: messages is {kind_of(messages)}; give a list of objects with role and content"
        )
    messages = [
        _message(message, f"{name}: message {place}") for place, message in enumerate(messages)
    ]
    if messages[-1]["role"] == "assistant":
        raise UserError(
            f"{name}: the last message is the assistant's, and the completion would be another "
            "turn of it; end the chat with the user's message"
        )
    try:
        text = str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **template
            )
        )
    except Exception as error:  # whatever a template raises about roles and their order
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{name}: the chat template refuses the messages ({reason}); change their roles or "
            "order"
        ) from None
    begin = getattr(tokenizer, "bos_token", None)
    if begin and text.startswith(begin):
        adds = list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
        text = text.removeprefix(begin) if adds else text
    return text


def task_by_name(name: str, **settings: Any) -> Task:
    """The task called ``conventions``, ``arithmetic``, ``counting``, ``gsm8k`` or ``gym:NAME``.

    The answers of ``gsm8k`` are judged in a process of their own, so that no answer can hold up
    anything.

    :param settings: What the task's function takes: ``num_prompts``, ``seed``, ``path`` of a local
        GSM8K; see :data:`TASKS` and :func:`gym`.
    :raises UserError: For an unknown name or setting, and what the task itself raises.
    """
    if name.startswith("gym:"):
        return gym(name.removeprefix("gym:"), **settings)
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}; the tasks are {', '.join(TASKS)} and gym:NAME")
    known = list(inspect.signature(TASKS[name]).parameters)
    for setting in settings:
        if setting not in known:
            raise UserError(
                f"the task {name} has no setting {setting!r}; it has {', '.join(known)}"
            )
    task = TASKS[name](**settings)
    if name == "gsm8k":
        return Task(task.name, task.prompts, Verifier("gsm8k"), task.stop, task.max_new_tokens)
    return task


def gym(
    name: str,
    *,
    num_prompts: int = 16,
    num_examples: int = 0,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    stop: str | None = None,
    max_new_tokens: int = 256,
    **config: Any,
) -> Task:
    """Questions of a reasoning-gym data set, judged by its own ``score_answer``.

    With a tokenizer that has a chat template each question is a user's message; otherwise it is
    text, ``Question: ... Answer:``, behind ``num_examples`` worked ones.

    :param seed: Of the data set. Its first ``num_examples`` items are shown, the next asked.
    :param config: Further settings of the data set.
    :raises UserError: For an unknown data set or setting, a setting out of its range, no prompts,
        or examples together with a chat template.
    """
    check_gym_name(name)
    import reasoning_gym

    if num_prompts < 1 or num_examples < 0 or max_new_tokens < 1:
        raise UserError(
            f"num_prompts is {num_prompts}, num_examples {num_examples}, max_new_tokens "
            f"{max_new_tokens}; give at least 1, 0 and 1"
        )
    chat = tokenizer is not None and bool(getattr(tokenizer, "chat_template", None))
    if chat and num_examples:
        raise UserError(
            f"num_examples is {num_examples}, and questions to a chat model stand alone; give 0"
        )
    try:
        data = reasoning_gym.create_dataset(
            name, seed=seed, size=num_prompts + num_examples, **config
        )
        items = [data[place] for place in range(num_prompts + num_examples)]
    except (TypeError, AssertionError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"reasoning-gym cannot make {name!r} with these settings ({reason}); "
            f"see the configuration of that data set"
        ) from error
    context = "".join(
        f"Question: {item['question']}\nAnswer: {item['answer']}\n\n"
        for item in items[:num_examples]
    )
    prompts, entries = [], {}
    for place, item in enumerate(items[num_examples:], start=num_examples):
        key = f"{name}:{seed}:{place}"
        if chat:
            question = render_chat(
                tokenizer, [{"role": "user", "content": item["question"]}], name=key
            )
        else:
            question = f"Question: {item['question']}\nAnswer:"
        prompts.append(Prompt(context, question, str(item["answer"] or ""), name, key))
        entries[key] = item
    judge = Verifier(f"gym:{name}", entries=entries)
    return Task(f"gym:{name}", tuple(prompts), judge, stop, max_new_tokens)


def _message(message: Any, name: str) -> dict[str, Any]:
    """A message with its content as text, and without what a table fills up with nulls."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise UserError(f"{name} lacks text under role or content; give both, role being {_ROLES}")
    plain = {key: part for key, part in message.items() if part is not None}
    if plain.get("content") is None and plain.get("tool_calls"):
        return plain
    plain["content"] = content_text(message.get("content"), name)
    return plain


def content_text(content: Any, name: str) -> str:
    """The content of a message as text; it may be a list with one part of text.

    :raises UserError: For content of another kind, and for several parts, which each engine joins
        in its own way.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        kinds = [part.get("type", "text") if isinstance(part, dict) else None for part in content]
        other = next((kind for kind in kinds if kind != "text"), "text")
        if other != "text":
            raise UserError(f"{name} has a part of the type {other!r}; give parts of text alone")
        if len(content) > 1:
            raise UserError(
                f"{name} has {len(content)} parts of text, which every engine joins in its own "
                "way; write them as one"
            )
        text = content[0].get("text")
        if isinstance(text, str):
            return text
    raise UserError(f"{name} lacks text under role or content; give both, role being {_ROLES}")


def _prompt(row: Mapping[str, Any], at: Line, tokenizer: PreTrainedTokenizerBase | None) -> Prompt:
    row = _columns(row, at)
    given = [name for name in ("prompt", "messages") if not _missing(row.get(name))]
    if len(given) != 1:
        at.fail(
            "both prompt and messages; keep one"
            if given
            else "no prompt; give prompt (text) or messages (a chat)"
        )
    text = row[given[0]]
    if isinstance(row, TextRow) and text.lstrip().startswith("[") and given == ["messages"]:
        text = parse(text, at, "write messages as JSON")
    if given == ["messages"] or isinstance(text, list):
        text = render_chat(tokenizer, text, name=at.name)
    elif not isinstance(text, str):
        at.fail(f"prompt is {kind_of(text)}; give text, and a chat as messages")
    if not text:
        at.fail("prompt is empty; give the text that the model continues")
    answer = _answer(row, at)
    labels = {name: _label(row.get(name), name, at) for name in ("id", "group")}
    for name, value in (("prompt", text), ("answer", answer), *labels.items()):
        # JSON may hold halves of a surrogate pair, which no tokenizer and no table takes.
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            at.fail(f"{name} holds half of a surrogate pair; write whole characters")
    return Prompt("", text, answer, labels["group"], labels["id"] or at.name.rpartition(" ")[2])


def _columns(row: Mapping[str, Any], at: Line) -> Mapping[str, Any]:
    """The row with the columns of :data:`COLUMNS`; those of verl's data sets become them."""
    reward_model = row.get("reward_model")
    if isinstance(reward_model, dict):
        return {
            "prompt": row.get("prompt"),
            "answer": reward_model.get("ground_truth"),
            "group": row.get("data_source"),
        }
    unknown = [name for name in row if name not in (*COLUMNS, *ANSWERS)]
    if unknown:
        at.fail(
            f"unknown columns {', '.join(map(repr, unknown))}; the columns are {', '.join(COLUMNS)}"
        )
    return row


def _answer(row: Mapping[str, Any], at: Line) -> str:
    """The reference as text; a number in digits, without an exponent."""
    given = [name for name in ANSWERS if not _missing(row.get(name))]
    if not given:
        at.fail("no answer; give the reference that the verifier compares with")
    if len(given) > 1:
        at.fail(f"both {given[0]} and {given[1]}; keep one")
    answer = row[given[0]]
    if isinstance(answer, bool) or not isinstance(
        answer, str | int | float | Decimal | date | time
    ):
        at.fail(f"answer is {kind_of(answer)}; give text or a number")
    if isinstance(answer, date | time):
        if isinstance(answer, datetime) and answer.time() == time():
            answer = answer.date()
        answer = answer.isoformat()
    if not isinstance(answer, str):
        plain = answer if isinstance(answer, Decimal) else Decimal(repr(answer))
        if not plain.is_finite():
            at.fail(f"answer is {answer}; give text or a finite number")
        if plain.adjusted() > 400 or plain.adjusted() < -400:
            at.fail("answer has too many digits; write it as text, in quotes")
        whole = plain == plain.to_integral_value()
        answer = str(int(plain)) if whole else format(plain, "f")
    if not answer.strip():
        at.fail("answer is empty; give the reference that the verifier compares with")
    return answer


def _label(value: Any, name: str, at: Line) -> str:
    """An id or a group as text; a whole number may be a float, as beside gaps in pandas."""
    if _missing(value):
        return ""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        at.fail(f"{name} is {kind_of(value)}; give text or a whole number")
    return str(value)


def _missing(value: Any) -> bool:
    """Whether a cell is null, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))
