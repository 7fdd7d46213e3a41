"""verl's dumps of rollouts, ``trainer.rollout_data_dir``."""

from __future__ import annotations

from passgrad.rollouts.foreign_logs import Log, RetokenisedWarning, Sample, reward_of
from passgrad.rollouts.readers.values import whole


def read_verl(log: Log) -> list[Sample]:
    """One sample a row."""
    log.need("input", "output")
    judged = "score" in log.columns or bool(log.asked.reward) or not log.lookup.by_id
    weights = log.weights("score" if judged else None)
    log.need(*weights)
    samples = []
    unmatched = 0
    for row in log.rows:
        cells, where = row.cells, row.where
        text = log.text(cells.get("input"), where, "input")
        known = log.lookup.find(None, text)
        unmatched += known is None
        sample = Sample(
            where,
            known.id if known else None,
            known.text if known else text,
            log.text(cells.get("output"), where, "output"),
            reward=reward_of(row, weights),
            step=whole(cells.get("step"), where, "step", text=row.text),
        )
        samples.append(log.ended(sample, cells.get("finish_reason")))
    if unmatched and getattr(log.tokenizer, "chat_template", None):
        log.doubt(
            f"verl wrote the prompts of {unmatched} samples without special tokens, so the marks "
            "of a chat are missing from what the model read; give --prompts (prompts=), which then "
            "stand in",
            RetokenisedWarning,
        )
    return samples
