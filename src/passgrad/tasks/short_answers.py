"""Questions whose answer stands alone behind them: few-shot text that ends in a number.

A small model that is asked in chat at temperature 1 writes long texts, nearly all different and
mostly wrong. Behind a few examples ``Question: ... Answer: 72`` it names a number at once: success
rates spread, a completion is a few tokens, and where one string is accepted the success rate is the
probability of one token sequence (:class:`passgrad.worlds.language.LanguageWorld`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.gsm8k import gsm8k
from passgrad.tasks.prompt_files import render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: ends an answer, which stands on one line
STOP = "\n"
#: words between a question and its answer, which starts with a space
ANSWER = "Answer:"


def short_answers(
    name: str,
    questions: Sequence[Prompt],
    *,
    num_examples: int,
    max_new_tokens: int,
    verify: Callable[[str, Prompt], bool] = exact_match,
    word: str = "Question",
) -> Task:
    """A task that shows the first ``num_examples`` questions with their answers and asks the rest.

    :param questions: Bare questions; ``answer`` is the reference, without white space around it.
        The prompts of the task have it behind one space, as the examples do.
    :param verify: By default the answer is right when it is the reference, character for character.
    :raises UserError: For a negative number of examples, or none of the questions left to ask.
    """
    if num_examples < 0 or len(questions) <= num_examples:
        raise UserError(
            f"the task {name} has {len(questions)} questions and {num_examples} examples; "
            "leave at least one question to ask"
        )
    written = [
        replace(
            one,
            context="",
            question=f"{word}: {' '.join(one.question.split())}{STOP}{ANSWER}",
            answer=f" {one.answer.strip()}",
        )
        for one in questions
    ]
    context = "".join(one.question + one.answer + STOP for one in written[:num_examples])
    asked = tuple(replace(one, context=context) for one in written[num_examples:])
    return Task(name, asked, verify, STOP, max_new_tokens)


def gsm8k_answers(
    path: str | Path | None = None,
    *,
    num_prompts: int = 16,
    num_examples: int = 4,
    max_new_tokens: int = 8,
    seed: int = 0,
) -> Task:
    """GSM8K with the number asked for at once, without a solution before it.

    :param path, seed: As for :func:`passgrad.tasks.gsm8k.gsm8k`.
    :raises UserError: As there.
    """
    asked = gsm8k(path, num_prompts=num_prompts + max(num_examples, 0), num_examples=0, seed=seed)
    questions = [
        replace(
            one, question=one.question.removeprefix("Question: ").removesuffix(f"{STOP}{ANSWER}")
        )
        for one in asked.prompts
    ]
    return short_answers(
        "gsm8k", questions, num_examples=num_examples, max_new_tokens=max_new_tokens
    )


def in_chat(
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    verify: Callable[[str, Prompt], bool],
    instruction: str = "",
    max_new_tokens: int = 64,
) -> Task:
    """The same questions, each as a user's message to a chat model, without examples.

    A completion ends at the model's own end token.

    :param verify: Judges free text, such as ``Verifier("math")``.
    :param instruction: Stands behind each question.
    :raises UserError: For a tokenizer without a chat template.
    """
    prompts = []
    for one in task.prompts:
        bare = one.question.partition(": ")[2].removesuffix(f"{STOP}{ANSWER}")
        message = {"role": "user", "content": f"{bare} {instruction}".strip()}
        text = render_chat(tokenizer, [message], name=f"prompt {one.id!r}")
        prompts.append(replace(one, context="", question=text, answer=one.answer.strip()))
    return Task(f"{task.name} in chat", tuple(prompts), verify, None, max_new_tokens)
