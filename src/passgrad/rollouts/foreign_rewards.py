"""Rewards in {0, 1}: those of a log, as they are or by a threshold, or a verifier's verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from passgrad.errors import UserError
from passgrad.rollouts.foreign_logs import Log, Sample
from passgrad.rollouts.readers.values import refuse, shown
from passgrad.tasks.base import Prompt, Task
from passgrad.tasks.thinking import answer_of
from passgrad.tasks.verifiers import Verifier


def settle_rewards(
    log: Log, samples: list[Sample], task: Task | None, verifier: Verifier | None
) -> None:
    """Rewards in {0, 1} for all samples.

    :param task: Judges samples without a reward, with its own references.
    :param verifier: Judges them otherwise, with the references of the log.
    :raises UserError: For a reward that is neither 0 nor 1, and a sample that cannot be judged.
    """
    _threshold(log, samples, log.asked.threshold)
    _judge(log, samples, task, verifier)


def _threshold(log: Log, samples: list[Sample], threshold: float | None) -> None:
    """Rewards above the threshold are right."""
    rewards = [sample.reward for sample in samples if sample.reward is not None]
    if threshold is None:
        return
    if not rewards:
        raise UserError(
            f"{log.name}: there is no reward to compare with --threshold (threshold=); leave it "
            "out, or name a column by --reward (reward=)"
        )
    real = [reward for reward in rewards if reward == reward]
    if real and min(real) < max(real) and (min(real) > threshold or max(real) == threshold):
        which = "all are above" if min(real) > threshold else "none is above"
        raise UserError(
            f"{log.name}: the rewards are {min(real):g} to {max(real):g}, and {which} --threshold "
            f"(threshold=) {threshold:g}; give one between a wrong and a right one"
        )
    for sample in samples:
        if sample.reward is not None and sample.reward == sample.reward:
            sample.reward = float(sample.reward > threshold)


def _judge(log: Log, samples: list[Sample], task: Task | None, verifier: Verifier | None) -> None:
    """Rewards in {0, 1}: the log's, or else the verdict of the task or of the verifier."""
    unjudged = [sample for sample in samples if sample.reward is None]
    if not unjudged and task is None and verifier is not None and verifier.spec != "exact":
        raise UserError(
            f"--verifier (verifier=) does not apply: {log.name} has rewards, and without prompts "
            "nothing is judged"
        )
    if unjudged and task is not None:
        prompts = []
        for sample in unjudged:
            known = log.lookup.find(sample.prompt_id, sample.prompt)
            if known is None:
                refuse(
                    sample.where,
                    f"the prompt is not among those of the task {task.name}, so it cannot be "
                    "judged; give --prompts (prompts=) that the samples were drawn for",
                )
            prompts.append(known)
        _give_verdicts(log, unjudged, prompts, task.verify, task.think)
    elif unjudged:
        lacking = next((sample for sample in unjudged if sample.answer is None), None)
        some = len(unjudged) < len(samples)  # a gap among rewards is no wish for a verdict
        if some or lacking is not None or verifier is None:
            refuse(
                (lacking or unjudged[0]).where,
                "no reward; name a column of rewards by --reward (reward=), or "
                "--prompts (prompts=), whose verifier judges",
            )
        prompts = [
            Prompt("", sample.prompt, sample.answer or "", sample.group, sample.prompt_id or "")
            for sample in unjudged
        ]
        _give_verdicts(log, unjudged, prompts, verifier, log.think)
        if verifier.spec == "exact" and not any(sample.reward for sample in unjudged):
            raise UserError(
                f"{log.name}: exact finds no completion right; the first reference is "
                f"{shown(unjudged[0].answer)}; name another --verifier (verifier=)"
            )
    for sample in samples:
        if sample.reward not in (0, 1):
            refuse(
                sample.where,
                f"the reward is {sample.reward!r}, and pass@k needs 0 or 1; say by "
                "--threshold (threshold=) above which value it is right, or name another column "
                "by --reward (reward=)",
            )


def _give_verdicts(
    log: Log, samples: list[Sample], prompts: list[Prompt], verify: Any, think: str | None
) -> None:
    """The verdict on each; as in sampling, an answer without its stop is none, nor is one that
    stands in thoughts.
    """
    rewards: Sequence[float] | np.ndarray
    answers = [answer_of(sample.completion or "", sample.prompt, think) for sample in samples]
    texts = [answer or "" for answer in answers]
    if isinstance(verify, Verifier):
        rewards, incidents = verify.judge(texts, prompts)
        if incidents:
            log.doubt(
                f"{sum(len(one.places) for one in incidents)} completions had no "
                f"verdict and count as wrong; first: {incidents[0]}",
                UserWarning,
            )
    else:
        rewards = [float(verify(*pair)) for pair in zip(texts, prompts, strict=True)]
    for sample, answer, value in zip(samples, answers, rewards, strict=True):
        cut = answer is None or (sample.state == "length" and log.stop is not None)
        sample.reward = 0.0 if cut else float(value)
