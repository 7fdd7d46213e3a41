"""GSM8K with worked solutions, drawn at temperature 1 and judged by math-verify."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from passgrad.lm.completions import Completions
from passgrad.lm.models import load_model
from passgrad.lm.passes import CompletionPasses
from passgrad.lm.tokens import encode
from passgrad.rollouts.sampling import Engine, sample
from passgrad.tasks.gsm8k import gsm8k
from passgrad_book.build import paths
from passgrad_book.build.experiment import SINGLE, experiment, model_input
from passgrad_book.experiments.inputs import verifier_input
from passgrad_book.experiments.small_models.witness_model import witness_model

if TYPE_CHECKING:
    from pandas import DataFrame

    Tables = Mapping[str, DataFrame]


def _inputs(parameters: Mapping[str, Any]) -> dict[str, str | None]:
    return model_input(parameters) | verifier_input()


@experiment(version=1, label="seed-{seed}", inputs=_inputs, files=("gsm8k_path",))
def word_problems(
    *,
    model: str,
    num_prompts: int,
    num_samples: int,
    seed: int,
    engine: Engine,
    gsm8k_path: str = "",
) -> Tables:
    """How many of ``num_samples`` solutions are right: table ``counts``, one row a problem.

    :param gsm8k_path: A JSON-lines file of GSM8K; empty: the hub, by name.
    """
    problems = gsm8k(gsm8k_path or None, num_prompts=num_prompts, seed=seed)
    drawn = sample(model, problems, num_samples=num_samples, engine=engine)
    return {"counts": _counts(drawn.table.to_pandas())}


def _counts(drawn: DataFrame) -> DataFrame:
    drawn["tokens"] = drawn["completion_ids"].map(len)
    drawn["answered"] = drawn["completion"].str.contains("####")
    by_prompt = drawn.groupby("prompt_id", sort=False)
    return by_prompt.agg(
        samples=("reward", "size"), correct=("reward", "sum"), answered=("answered", "mean"),
        tokens=("tokens", "mean"), logprob=("logprob", "mean"), engine=("engine", "first"),
    ).reset_index()  # fmt: skip


# --- the witness: what an engine drew once is judged, scored and counted again --------------------

#: right and wrong solutions of a word problem of the project's own, judged anew
_TEXTS = (
    " 3 + 4 = 7\n#### {answer}", " So it is {answer}.\n#### {answer}.0", " #### 1{answer}",
    " I do not know.", " {answer}\n#### -{answer}", "####{answer} dollars", " #### ${answer}",
)  # fmt: skip


def _task() -> Any:
    return gsm8k(paths.root() / "data" / "word_problems.jsonl", num_prompts=3, num_examples=1)


def _keep() -> Tables:
    drawn = sample(witness_model(), _task(), num_samples=3, engine="transformers").table.to_pandas()
    columns = ["prompt_id", "completion", "completion_ids", "reward", "logprob", "engine"]
    return {"drawn": drawn[columns]}


def _replay(kept: Tables) -> Tables:
    """Draw again for the log-probabilities alone; judge, score and count the kept completions."""
    import pandas as pd

    task = _task()
    prompts = {prompt.id: prompt for prompt in task.prompts}
    fresh = sample(witness_model(), task, num_samples=2, engine="transformers").table.to_pandas()
    network, tokenizer = load_model(witness_model())

    def gap(drawn: DataFrame) -> float:
        """Largest difference between the engine's log-probabilities and packed passes."""
        rows = drawn.groupby("prompt_id", sort=False)
        completions = Completions.from_tokens(
            [tuple(encode(tokenizer, prompts[name].text)) for name, _ in rows],
            [[tuple(int(i) for i in ids) for ids in part["completion_ids"]] for _, part in rows],
            [str(name) for name, _ in rows],
        )
        passes = CompletionPasses(network, completions, torch.zeros(completions.shape))
        return float(np.abs(passes.logprobs().numpy().ravel() - drawn["logprob"]).max())

    drawn = kept["drawn"].copy()
    judged = [
        task.verify(text, prompts[name])
        for name, text in zip(drawn["prompt_id"], drawn["completion"], strict=True)
    ]
    drawn["reward"] = np.array(judged, dtype=float)
    made = [
        (prompt.id, text, float(task.verify(text.format(answer=prompt.answer.strip()), prompt)))
        for prompt in task.prompts
        for text in _TEXTS
    ]
    return {
        "counts": _counts(drawn),
        "verdicts": pd.DataFrame(made, columns=["prompt_id", "completion", "reward"]),
        "engine": pd.DataFrame({"agrees": [gap(fresh) < 1e-2], "kept agrees": [gap(drawn) < 1e-2]}),
    }


word_problems.replayed(_replay, _keep, tolerance=SINGLE, replaces=["passgrad.rollouts.vllm_engine"])
