"""Which reader takes a log: the layouts, and how their columns tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from passgrad.lm.rollouts import SCHEMA
from passgrad.rollouts.foreign_logs import PLAIN, Log, Sample
from passgrad.rollouts.logged import Layout
from passgrad.rollouts.readers.batch import read_batch
from passgrad.rollouts.readers.evalplus import read_evalplus
from passgrad.rollouts.readers.generate import read_generate
from passgrad.rollouts.readers.lm_eval import read_lm_eval
from passgrad.rollouts.readers.plain import read_plain
from passgrad.rollouts.readers.trl import read_trl
from passgrad.rollouts.readers.verl import read_verl

READERS: Mapping[str, Callable[[Log], list[Sample]]] = {
    "plain": read_plain,
    "verl": read_verl,
    "trl": read_trl,
    "batch": read_batch,
    "generate": read_generate,
    "lm-eval": read_lm_eval,
    "evalplus": read_evalplus,
}


def layout_of(columns: Collection[str]) -> Layout:
    """The layout that has these columns; the plain one where no other does."""
    has = set(columns)
    if has >= set(SCHEMA.names):
        return "passgrad"
    if has >= {"custom_id", "response"}:
        return "batch"
    if has >= {"resps", "doc_id"}:
        return "lm-eval"
    if "eval" in has or (
        "task_id" in has and has & {"solution", "completion"} and "prompt" not in has
    ):
        return "evalplus"
    if has >= {"input", "output"}:
        return "verl"
    if "outputs" in has or ("text" in has and has & {"token_ids", "output_ids", "meta_info"}):
        return "generate"
    if has >= {"step", "prompt", "completion"} and ("advantage" in has or not has <= set(PLAIN)):
        return "trl"
    return "plain"
