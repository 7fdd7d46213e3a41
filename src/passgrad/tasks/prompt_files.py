"""Prompts that a user brings, as JSON lines, and the tasks that have a name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.errors import UserError
from passgrad.tasks.arithmetic import arithmetic
from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.conventions import conventions
from passgrad.tasks.gsm8k import gsm8k
from passgrad.tasks.json_lines import Line, json_lines, kind_of
from passgrad.tasks.verifiers import Verifier, check_gym_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: the columns of a file of prompts; of the first two exactly one in each row
COLUMNS = ("prompt", "messages", "answer", "id", "group")

#: what a named task is made by; ``gym:NAME`` is :func:`gym`
TASKS: Mapping[str, Callable[..., Task]] = {
    "conventions": conventions,
    "arithmetic": arithmetic,
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
    """A task from a file of JSON lines, one prompt a line.

    ``prompt``: the text that the model continues; or ``messages``: a chat, a list of objects with
    ``role`` and ``content``, rendered by the tokenizer's chat template with the opening of the
    model's turn at its end. ``answer``: the reference, text or a number. ``id``: distinct; the line
    number stands in for it. ``group``: the kind of prompt.

    :param tokenizer: The model's; needed for ``messages``.
    :param verifier: A name or function as for :class:`passgrad.tasks.verifiers.Verifier`, or one.
    :param stop: Ends a completion; None leaves that to the model's end token.
    :raises UserError: In one line with file, line number and remedy: for a missing or empty file,
        bytes that are no UTF-8, malformed JSON, missing, empty or unknown columns, a value of
        another type, an id that stands twice, a chat without a template for it.
    """
    path = Path(path)
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}; give at least 1")
    prompts: list[Prompt] = []
    lines: dict[str, int] = {}
    for number, row in json_lines(path):
        prompt = _prompt(row, Line(path, number), tokenizer)
        if prompt.id in lines:
            Line(path, number).fail(
                f"the id {prompt.id!r} stands on line {lines[prompt.id]} too; make the ids distinct"
            )
        lines[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise UserError(
            f"{path}, line 1: the file has no prompts; write one JSON object a line with prompt "
            "and answer"
        )
    judge = verifier if isinstance(verifier, Verifier) else Verifier(verifier)
    return Task(path.stem, tuple(prompts), judge, stop, max_new_tokens)


def render_chat(tokenizer: PreTrainedTokenizerBase | None, messages: Any, *, name: str) -> str:
    """The text of a chat before the model's next turn.

    A begin token that the tokenizer adds by itself is left out, so that it does not stand twice.

    :param name: How an error refers to the chat.
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
    for place, message in enumerate(messages):
        if not (
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        ):
            raise UserError(
                f"{name}: message {place} lacks text under role or content; give both, role being "
                + _ROLES
            )
    if messages[-1]["role"] == "assistant":
        raise UserError(
            f"{name}: the last message is the assistant's, and the completion would be another "
            "turn of it; end the chat with the user's message"
        )
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
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
    """The task called ``conventions``, ``arithmetic``, ``gsm8k`` or ``gym:NAME``.

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


def _prompt(row: Mapping[str, Any], at: Line, tokenizer: PreTrainedTokenizerBase | None) -> Prompt:
    unknown = [name for name in row if name not in COLUMNS]
    if unknown:
        at.fail(
            f"unknown columns {', '.join(map(repr, unknown))}; the columns are {', '.join(COLUMNS)}"
        )
    given = [name for name in ("prompt", "messages") if row.get(name) is not None]
    if len(given) != 1:
        at.fail(
            "both prompt and messages; keep one"
            if given
            else "no prompt; give prompt (text) or messages (a chat)"
        )
    if given == ["messages"]:
        text = render_chat(tokenizer, row["messages"], name=at.name)
    else:
        text = row["prompt"]
        if not isinstance(text, str):
            at.fail(f"prompt is {kind_of(text)}; give text, and a chat as messages")
        if not text:
            at.fail("prompt is empty; give the text that the model continues")
    answer = row.get("answer")
    if answer is None:
        at.fail("no answer; give the reference that the verifier compares with")
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)):
        at.fail(f"answer is {kind_of(answer)}; give text or a number")
    answer = answer if isinstance(answer, str) else json.dumps(answer)
    if not answer.strip():
        at.fail("answer is empty; give the reference that the verifier compares with")
    labels = {}
    for name in ("id", "group"):
        label = row.get(name)
        if label is not None and (isinstance(label, bool) or not isinstance(label, (str, int))):
            at.fail(f"{name} is {kind_of(label)}; give text or a whole number")
        labels[name] = "" if label is None else str(label)
    for name, value in (("prompt", text), ("answer", answer), *labels.items()):
        # JSON may hold halves of a surrogate pair, which no tokenizer and no table takes.
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            at.fail(f"{name} holds half of a surrogate pair; write whole characters")
    return Prompt("", text, answer, labels["group"], labels["id"] or at.name.rpartition(" ")[2])
