r"""One data set under two sampling laws: counts, and the inner products of the mean scores.

The tables hold all that :mod:`passgrad_book.experiments.mathematics.as_printed` needs, so that
filters, weights, k, baselines and readings can be changed without the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.rollouts import Rollouts, Sampling
from passgrad.lm.tokens import TokenizedPrompt, encode, tokenize_prompt
from passgrad.progress import Progress
from passgrad.rollouts.sampling import Engine, sample
from passgrad.rollouts.shared_beginnings import sample_laws, truncated
from passgrad.tasks.base import Task
from passgrad_book.experiments.mathematics.class_scores import Law, PromptVectors, class_scores

if TYPE_CHECKING:
    from pandas import DataFrame
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: temperature and top-p of the printed measurement
PRINTED_LAW: Final = (0.7, 0.95)


@dataclass(frozen=True)
class Settings:
    """``num_samples``: n under the printed law; the policy itself is sampled 2 n times, so that a
    half has n too. ``centred``: compute the wrong answers' vectors as well. ``unsolved``: compute
    the vector of the one accepted answer also for prompts that were never solved, which the exact
    product needs. ``size``: of a sketch.
    """

    num_samples: int = 32
    temperature: float = PRINTED_LAW[0]
    top_p: float = PRINTED_LAW[1]
    centred: bool = True
    unsolved: bool = True
    size: int = 2**14
    seed: int = 0


def study(
    model: str,
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    single: bool,
    settings: Settings | None = None,
    engine: Engine | Literal["shared"] = "shared",
    progress: Progress | None = None,
) -> dict[str, DataFrame]:
    """Sample a task under the printed law and under the policy itself, and take its vectors.

    :param model: Where an engine finds the weights that ``network`` holds.
    :param engine: One of :func:`passgrad.rollouts.sampling.sample`, or "shared", which draws
        answers of a
        few tokens from ``network`` itself (:mod:`passgrad.rollouts.shared_beginnings`).
    :param single: Whether the reference is the one accepted answer. Then success rates are computed
        exactly under both laws, and a completion is right when its tokens are the reference's.
    :returns: ``prompts``, one row a prompt; ``answers``, one a completion; ``vectors`` and
        ``kernel``, the upper triangle for each reading; ``facts``, one row.
    :raises UserError: What sampling and the passes raise.
    """
    import pandas as pd

    chosen = settings or Settings()
    n = chosen.num_samples
    laws: dict[Law, tuple[int, Sampling]] = {
        "printed": (n, Sampling(chosen.seed, chosen.temperature, chosen.top_p)),
        "policy": (2 * n, Sampling(chosen.seed + 1)),
    }
    if engine == "shared":
        drawn = dict(
            zip(laws, sample_laws(network, tokenizer, task, [*laws.values()]), strict=True)
        )
    else:
        drawn = {
            law: sample(model, task, num_samples=count, engine=engine, settings=sampling)
            for law, (count, sampling) in laws.items()
        }
    prompts = [tuple(encode(tokenizer, one.text)) for one in task.prompts]
    ids = {law: _ids(one) for law, one in drawn.items()}
    references = _references(tokenizer, task) if single else None
    rewards = {law: torch.from_numpy(one.rewards) for law, one in drawn.items()}
    if references is not None:
        rewards = {
            law: torch.tensor(
                [[float(y == references[x].target) for y in row] for x, row in enumerate(ids[law])]
            ).double()
            for law in laws
        }
    # Both laws side by side, and the reference behind them.
    joined = [
        [*ids["printed"][x], *ids["policy"][x], *([references[x].target] if references else [])]
        for x in range(len(prompts))
    ]
    completions = Completions.from_tokens(prompts, joined, [one.id for one in task.prompts])
    right = torch.zeros(completions.shape, dtype=torch.float64)
    columns: dict[Law, slice] = {"printed": slice(0, n), "policy": slice(n, 3 * n)}
    for law, place in columns.items():
        right[:, place] = rewards[law]
    passes = CompletionPasses(network, completions, right)
    bases, labels = [], []
    for x in range(len(prompts)):
        rows, names = _basis(right[x], columns, single, chosen)
        bases.append(torch.stack(rows) if rows else right.new_zeros(0, right.shape[1]))
        labels += [(x, *name) for name in names]
    found = class_scores(passes, bases, size=chosen.size, seed=chosen.seed, progress=progress)
    success = printed = np.full(len(prompts), np.nan)
    if references is not None:
        last = torch.zeros(completions.shape, dtype=torch.bool)
        last[:, -1] = True
        success = passes.logprobs(where=last)[:, -1].exp().numpy()
        printed = np.array(
            [sharpened(network, one, chosen.temperature, chosen.top_p) for one in references]
        )
    table = pd.DataFrame(
        {
            "prompt_id": [one.id for one in task.prompts],
            "group": [one.group for one in task.prompts],
            "success": success,
            "success_printed": printed,
            "correct_printed": rewards["printed"].sum(1).long().numpy(),
            "correct_policy": rewards["policy"].sum(1).long().numpy(),
            "tokens": [len(ids) for ids in prompts],
        }
    )
    answers = pd.concat([_answers(law, drawn[law], rewards[law], ids[law]) for law in laws])
    facts = {
        "sketch_error": found.sketch_error,
        "single": single,
        "num_samples": n,
        "engine": drawn["policy"].table["engine"][0].as_py(),
        "sampled_tokens": int(answers["tokens"].sum()),
        "read_tokens": completions.num_tokens(),
    }
    return {
        "prompts": table,
        "answers": answers.reset_index(drop=True),
        "vectors": pd.DataFrame(labels, columns=["prompt", "kind", "law"]),
        "kernel": _triangles(found.kernels),
        "facts": pd.DataFrame([facts]),
    }


def vectors_of(tables: Mapping[str, DataFrame]) -> PromptVectors:
    """The vectors that the tables of :func:`study` hold."""
    number, vectors = len(tables["prompts"]), tables["vectors"]
    size = len(vectors)
    kernels = {}
    for reading, part in tables["kernel"].groupby("reading", sort=False):
        kernel = torch.zeros(size, size, dtype=torch.float64)
        rows, columns = (
            torch.from_numpy(part[name].to_numpy().astype(np.int64)) for name in ("row", "column")
        )
        kernel[rows, columns] = torch.from_numpy(part["value"].to_numpy().astype(np.float64))
        kernels[str(reading)] = kernel + kernel.triu(1).T
    places: dict[str, dict[Law, Tensor]] = {"right": {}, "wrong": {}}
    for kind, mine in places.items():
        for law in ("printed", "policy"):
            where = torch.full((number,), -1)
            some = vectors[(vectors["kind"] == kind) & vectors["law"].isin([law, "both"])]
            where[torch.from_numpy(some["prompt"].to_numpy(copy=True))] = torch.from_numpy(
                some.index.to_numpy(copy=True)
            )
            mine[law] = where  # type: ignore[index]
    return PromptVectors(kernels, places["right"], places["wrong"])


def rewards_of(tables: Mapping[str, DataFrame], law: Law) -> Tensor:
    """(M, n) of the answers under a law."""
    answers = tables["answers"]
    part = answers[answers["law"] == law]["reward"].to_numpy(dtype=np.float64)
    return torch.from_numpy(part.reshape(len(tables["prompts"]), -1).copy())


@torch.no_grad()
def sharpened(
    model: PreTrainedModel, sequence: TokenizedPrompt, temperature: float, top_p: float
) -> float:
    """The probability of a target at a temperature and with top-p
    (:func:`passgrad.rollouts.shared_beginnings.truncated` at each step).

    :raises UserError: For a temperature that is not positive or a top-p outside of (0, 1].
    """
    if not temperature > 0 or not 0 < top_p <= 1:
        raise UserError(
            f"temperature {temperature} and top_p {top_p}: give positive ones, top_p <= 1"
        )
    whole = torch.tensor([sequence.prefix + sequence.target], device=model.device)
    logits = model(input_ids=whole[:, :-1], use_cache=False).logits[0, len(sequence.prefix) - 1 :]
    law = truncated(logits, temperature, top_p)
    target = torch.tensor(sequence.target, device=law.device)[:, None]
    return float(law.gather(-1, target).prod())


def _references(tokenizer: PreTrainedTokenizerBase, task: Task) -> list[TokenizedPrompt]:
    if task.stop is None:
        raise UserError(f"the task {task.name} has no stop, so that no answer is the only one")
    return [
        tokenize_prompt(
            tokenizer, one.context, one.question, one.answer, stop=task.stop,
            name=f"prompt {one.id!r}",
        )
        for one in task.prompts
    ]  # fmt: skip


def _ids(rollouts: Rollouts) -> list[list[tuple[int, ...]]]:
    """Of each prompt, in the order of the rewards."""
    found: dict[str, list[tuple[int, ...]]] = {name: [] for name in rollouts.prompt_ids}
    columns = (rollouts.table[name].to_pylist() for name in ("prompt_id", "completion_ids"))
    for name, ids in zip(*columns, strict=True):
        found[name].append(tuple(ids))
    return list(found.values())


def _basis(
    right: Tensor, columns: Mapping[Law, slice], single: bool, settings: Settings
) -> tuple[list[Tensor], list[tuple[str, str]]]:
    """Rows over the completions of a prompt, and what they are: (kind, law)."""
    rows, names = [], []
    if single and (settings.unsolved or right.any()):
        reference = torch.zeros_like(right)
        reference[-1] = 1
        rows.append(reference)
        names.append(("right", "both"))
    for law, place in columns.items():
        good = torch.zeros_like(right)
        bad = torch.zeros_like(right)
        good[place], bad[place] = right[place], 1 - right[place]
        if not single and good.any():
            rows.append(good / good.sum())
            names.append(("right", law))
        if settings.centred and good.any() and bad.any():
            rows.append(bad / bad.sum())
            names.append(("wrong", law))
    return rows, names


def _answers(
    law: Law, rollouts: Rollouts, rewards: Tensor, ids: list[list[tuple[int, ...]]]
) -> DataFrame:
    import pandas as pd

    number, count = rewards.shape
    return pd.DataFrame(
        {
            "law": law,
            "prompt": np.repeat(np.arange(number), count),
            "sample": np.tile(np.arange(count), number),
            "reward": rewards.flatten().numpy().astype(np.uint8),
            "judged": rollouts.rewards.flatten().astype(np.uint8),
            "tokens": [len(y) for row in ids for y in row],
            "ended": rollouts.table["finish_reason"].to_numpy(zero_copy_only=False) == "stop",
        }
    )


def _triangles(kernels: Mapping[str, Tensor]) -> DataFrame:
    import pandas as pd

    parts: list[Any] = []
    for reading, kernel in kernels.items():
        rows, columns = torch.triu_indices(*kernel.shape)
        parts.append(
            pd.DataFrame(
                {
                    "reading": reading,
                    "row": rows.numpy().astype(np.int16),
                    "column": columns.numpy().astype(np.int16),
                    "value": kernel[rows, columns].numpy().astype(np.float32),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
