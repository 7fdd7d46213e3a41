"""Questions of reasoning-gym with short answers, few-shot, judged by its own scorer or exactly.

:func:`passgrad.tasks.prompt_files.gym` asks the same data sets for free text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.short_answers import short_answers
from passgrad.tasks.verifiers import Verifier, check_gym_name

Judge = Literal["exact", "scorer"]

# A data set of few questions repeats them; so many are drawn for each that is wanted.
_TRIES = 20


def gym_answers(
    name: str,
    *,
    num_prompts: int = 16,
    num_examples: int = 4,
    max_new_tokens: int = 8,
    judge: Judge = "exact",
    seed: int = 0,
    **config: Any,
) -> Task:
    """``num_prompts`` different questions of a data set, behind ``num_examples`` answered ones.

    :param name: ``gsm_symbolic``, ``chain_sum``, ``gcd``, or another name of reasoning-gym.
    :param judge: "exact": the reference, character for character, so that success rates are exact
        probabilities. "scorer": the data set's own score is 1.
    :param config: Further settings of the data set, such as ``max_value``.
    :raises UserError: For an unknown data set, judge or setting, a setting out of its range, no
        prompts, a data set without reference answers, and one of too few different questions.
    """
    check_gym_name(name)
    import reasoning_gym

    if judge not in ("exact", "scorer"):
        raise UserError(f'judge is {judge!r}; give "exact" or "scorer"')
    if num_prompts < 1 or num_examples < 0:
        raise UserError(
            f"num_prompts is {num_prompts}, num_examples {num_examples}; give at least 1 and 0"
        )
    wanted = num_prompts + num_examples
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    try:
        data = reasoning_gym.create_dataset(name, seed=seed, size=_TRIES * wanted, **config)
        for place in range(_TRIES * wanted):
            item = data[place]
            found.setdefault(item["question"], (place, item))
            if len(found) == wanted:
                break
    except (TypeError, AssertionError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"reasoning-gym cannot make {name!r} with these settings ({reason}); "
            "see the configuration of that data set"
        ) from error
    if len(found) < wanted:
        raise UserError(
            f"reasoning-gym's {name!r} gave {len(found)} different questions with these settings, "
            f"and {wanted} are needed; lower num_prompts or widen its ranges"
        )
    questions, entries = [], {}
    for place, item in found.values():
        answer = item["answer"]
        if answer is None or not str(answer).strip():
            raise UserError(
                f"reasoning-gym's {name!r} has no reference answer at item {place}, and few-shot "
                "examples need one; take another data set"
            )
        key = f"{name}:{seed}:{place}"
        questions.append(Prompt("", item["question"], str(answer), name, key))
        entries[key] = item
    verify: Callable[[str, Prompt], bool] = exact_match
    if judge == "scorer":
        verify = Verifier(f"gym:{name}", entries=entries)
    return short_answers(
        f"gym:{name}", questions, num_examples=num_examples, max_new_tokens=max_new_tokens,
        verify=verify,
    )  # fmt: skip
