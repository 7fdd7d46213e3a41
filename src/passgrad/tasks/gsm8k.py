"""GSM8K, grade-school word problems (Cobbe et al. 2021, arXiv:2110.14168), judged by
the number behind ``####``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.tasks.answers.equality import equal, reference
from passgrad.tasks.answers.forms import Equation, Number, read
from passgrad.tasks.answers.text import answer_text
from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.json_lines import json_lines

HUB_NAME = "openai/gsm8k"
#: ends a solution, which stands on one line: a single newline is the same token wherever it stands,
#: while a double one is often split differently before a letter than at the end of a text
STOP = "\n"

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_MARK = "####"
# A solution of grade-school length; verifiers must not be handed a megabyte.
_LONGEST_ANSWER = 200


def gsm8k(
    path: str | Path | None = None,
    *,
    num_prompts: int = 16,
    num_examples: int = 4,
    max_new_tokens: int = 160,
    seed: int = 0,
) -> Task:
    """Word problems behind ``num_examples`` worked solutions; none of the examples is asked.

    :param path: A JSON-lines file with ``question`` and ``answer`` (ending in ``#### N``), or a
        folder that holds one such file; None loads the training split from the hub.
    :param seed: Chooses examples and prompts.
    :raises UserError: For a missing file, a malformed line (named), too few rows, or a hub that
        cannot be reached.
    """
    rows = _read(Path(path)) if path is not None else _from_hub()
    if num_prompts < 1 or num_examples < 0:
        raise UserError(
            f"num_prompts is {num_prompts}, num_examples {num_examples}; give at least 1 and 0"
        )
    if len(rows) < num_prompts + num_examples:
        raise UserError(
            f"GSM8K has {len(rows)} rows here, and {num_prompts} prompts with {num_examples} "
            "examples need more; lower num_prompts"
        )
    chosen = random.Random(seed).sample(rows, num_examples + num_prompts)
    context = "".join(_question(row) + f" {_solution(row)}{STOP}" for row in chosen[:num_examples])
    prompts = tuple(
        Prompt(context, _question(row), _final(row["answer"]), "gsm8k", f"gsm8k:{row['place']}")
        for row in chosen[num_examples:]
    )
    return Task("gsm8k", prompts, verify, STOP, max_new_tokens)


def verify(completion: str, prompt: Prompt) -> bool:
    """Whether the number after ``####`` equals the reference; without the mark, or with something
    else than a number behind it, it is no answer.

    :raises ValueError: If the reference cannot be read.
    """
    _, mark, answer = completion.rpartition(_MARK)
    if not mark or len(answer) > _LONGEST_ANSWER:
        return False
    # References of this data set leave out the sign of a percentage.
    given = answer_text(answer.replace("%", "").rstrip(" !\n"))
    drawn = None if given is None else read(given)
    number = drawn.right if isinstance(drawn, Equation) else drawn
    return isinstance(number, Number) and equal(reference(prompt.answer), number)


def _question(row: Mapping[str, Any]) -> str:
    return f"Question: {' '.join(row['question'].split())}{STOP}Answer:"


def _solution(row: Mapping[str, Any]) -> str:
    # The calculator annotations <<48/2=24>> are for training with a calculator; a reader does not
    # see them.
    return " ".join(_ANNOTATION.sub("", row["answer"]).split())


def _final(answer: str) -> str:
    return answer.rpartition(_MARK)[2].strip().replace(",", "")


def _read(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if len(files) != 1:
            raise UserError(
                f"{path} holds {len(files)} .jsonl files; name the one that holds GSM8K"
            )
        path = files[0]
    rows = []
    for number, row in json_lines(path):
        for field in ("question", "answer"):
            if not isinstance(row.get(field), str):
                raise UserError(
                    f"{path}, line {number}: no text under {field!r}; "
                    "a GSM8K row has question and answer"
                )
        if _MARK not in row["answer"]:
            raise UserError(
                f"{path}, line {number}: the answer lacks {_MARK!r} before the final number"
            )
        rows.append({**row, "place": number})
    if not rows:
        raise UserError(f"{path} is empty; give a file of GSM8K rows")
    return rows


def _from_hub() -> list[dict[str, Any]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(HUB_NAME, "main", split="train")
    except Exception as error:  # whatever the hub's client raises when it cannot be reached
        raise UserError(
            f"the data set {HUB_NAME} could not be loaded from the hub ({type(error).__name__}); "
            "without a network give the path of a local JSON-lines file"
        ) from error
    return [{**row, "place": place} for place, row in enumerate(rows, start=1)]
