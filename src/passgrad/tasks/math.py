"""MATH, competition problems (Hendrycks et al. 2021, arXiv:2103.03874), judged by the
verifier ``math``.

The 500 problems of Lightman et al. (2023, arXiv:2305.20050), MATH-500, are what the hub has under
:data:`HUB_NAME`; a file with more of them is read from a path.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.json_lines import Line, json_lines
from passgrad.tasks.short_answers import short_answers
from passgrad.tasks.verifiers import Verifier

HUB_NAME = "HuggingFaceH4/MATH-500"
#: seconds that the judge of one answer may take
SECONDS = 5.0
# What a drawing in the text asks cannot be read off the text.
_DRAWING = "[asy]"


def math_problems(
    path: str | Path | None = None,
    *,
    num_prompts: int = 16,
    num_examples: int = 4,
    max_new_tokens: int = 16,
    longest_problem: int | None = None,
    longest_answer: int | None = None,
    hub_name: str = HUB_NAME,
    split: str = "test",
    seconds: float = SECONDS,
    seed: int = 0,
) -> Task:
    r"""Problems behind ``num_examples`` others with their answers, ``Problem: ... Answer: $\pi$``.

    An answer is right when the verifier ``math`` finds it equal to the reference, in a process that
    is killed after ``seconds``. For a chat model see :func:`passgrad.tasks.short_answers.in_chat`.

    :param path: A JSON-lines file with ``problem`` and ``answer``, or a folder that holds one such
        file; None loads ``hub_name`` from the hub.
    :param longest_problem, longest_answer: Characters beyond which a problem is left out, as are
        those with a drawing; None leaves all in.
    :param seed: Chooses examples and prompts.
    :raises UserError: For a missing file, a row without problem or answer (named), too few rows, or
        a hub that cannot be reached.
    """
    if num_prompts < 1 or num_examples < 0:
        raise UserError(
            f"num_prompts is {num_prompts}, num_examples {num_examples}; give at least 1 and 0"
        )
    every = _read(Path(path)) if path is not None else _from_hub(hub_name, split)
    rows = [row for row in every if _short(row, longest_problem, longest_answer)]
    if len(rows) < num_prompts + num_examples:
        raise UserError(
            f"MATH has {len(rows)} such rows here, and {num_prompts} prompts with {num_examples} "
            "examples need more; lower num_prompts, or allow longer problems"
        )
    chosen = random.Random(seed).sample(rows, num_examples + num_prompts)
    questions = [
        Prompt("", row["problem"], f"${row['answer'].strip()}$", row["group"], row["id"])
        for row in chosen
    ]
    return short_answers(
        "math", questions, num_examples=num_examples, max_new_tokens=max_new_tokens,
        verify=Verifier("math", seconds=seconds), word="Problem",
    )  # fmt: skip


def _short(row: Mapping[str, str], problem: int | None, answer: int | None) -> bool:
    if problem is not None and (len(row["problem"]) > problem or _DRAWING in row["problem"]):
        return False
    return answer is None or len(row["answer"]) <= answer


def _row(row: Mapping[str, Any], at: Line, place: int) -> dict[str, str]:
    for field in ("problem", "answer"):
        value = row.get(field)
        if not isinstance(value, str) or not value.strip():
            at.fail(
                f"no text under {field!r}; a row of MATH has problem and answer, and without an "
                "answer nothing can be judged"
            )
    level = row.get("level")
    name = row.get("unique_id")
    return {
        "problem": row["problem"],
        "answer": row["answer"],
        "group": "math" if level is None else f"level {str(level).removeprefix('Level ')}",
        "id": name if isinstance(name, str) and name else f"math:{place}",
    }


def _read(path: Path) -> list[dict[str, str]]:
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if len(files) != 1:
            raise UserError(f"{path} holds {len(files)} .jsonl files; name the one that holds MATH")
        path = files[0]
    rows = [_row(row, Line(path, number), number) for number, row in json_lines(path)]
    if not rows:
        raise UserError(f"{path} is empty; give a file of MATH rows with problem and answer")
    return rows


def _from_hub(name: str, split: str) -> list[dict[str, str]]:
    from datasets import load_dataset

    try:
        rows = list(load_dataset(name, split=split))
    except Exception as error:  # whatever the hub's client raises when it cannot be reached
        raise UserError(
            f"the data set {name} could not be loaded from the hub ({type(error).__name__}); "
            "without a network give the path of a local JSON-lines file"
        ) from error
    return [_row(row, Line(Path(name), place), place) for place, row in enumerate(rows, start=1)]
