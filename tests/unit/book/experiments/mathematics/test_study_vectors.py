"""Vectors of a study where there are none, and where there are too many."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad_book.experiments.mathematics.as_printed import ablation, as_samples, steps
from passgrad_book.experiments.mathematics.class_scores import READINGS
from passgrad_book.experiments.mathematics.math_study import Settings, rewards_of, study
from passgrad_book.experiments.mathematics.study_vectors import (
    MOST_VECTORS,
    check_size,
    most_vectors,
    products_bytes,
    read_vectors,
)

PROMPTS = tuple(Prompt("x=7\n", q, "3", "g", q) for q in ("ab=", "ba="))


def studied(model, tokenizer, verify, **settings):
    task = Task("tiny", PROMPTS, verify, "\n", 3)
    chosen = Settings(num_samples=8, size=64, **settings)
    return study("tiny", model(), tokenizer, task, single=False, settings=chosen)


def test_never_solved(tiny_model, tiny_tokenizer):
    tables = studied(tiny_model, tiny_tokenizer, lambda *_: False)
    assert len(tables["vectors"]) == 0
    vectors = read_vectors(tables)
    assert set(vectors.kernels) == set(READINGS)
    assert all(kernel.shape == (0, 0) for kernel in vectors.kernels.values())
    for places in (vectors.right, vectors.wrong):
        assert {law: where.tolist() for law, where in places.items()} == {
            "printed": [-1, -1],
            "policy": [-1, -1],
        }
    # What is made of them: estimates of zero, and no cosine.
    rewards = {law: rewards_of(tables, law) for law in ("printed", "policy")}
    table = ablation(vectors, rewards, 8, 8, replications=5)
    assert table["step"].tolist() == [step.name for step in steps()]
    assert (table["product"] == 0).all()
    assert table["cosine"].isna().all()
    samples = as_samples(vectors, rewards["policy"])
    assert torch.equal(samples.kernel, torch.zeros(2, 2, dtype=torch.float64))


def test_solved_ones_are_those_of_the_tables(tiny_model, tiny_tokenizer):
    tables = studied(tiny_model, tiny_tokenizer, exact_match_or_any, centred=True)
    vectors = read_vectors(tables)
    assert len(vectors.kernels["all parameters"]) == len(tables["vectors"])
    assert len(tables["vectors"]) <= most_vectors(2, single=False, centred=True)
    counted = products_bytes(len(tables["vectors"]))
    # One offset more than rows, and what the library rounds up to.
    assert counted <= tables["kernel"].memory_usage(index=False).sum() <= counted + 64


def exact_match_or_any(answer, prompt):
    return exact_match(answer, prompt) or len(answer) == 1


def test_sizes():
    # One vector for a single answer; right and wrong under two laws otherwise.
    assert most_vectors(10, single=True, centred=False) == 10
    assert most_vectors(10, single=True, centred=True) == 30
    assert most_vectors(10, single=False, centred=True) == 40
    assert products_bytes(3) == 6 * sum(len(name) + 16 for name in READINGS)
    assert check_size(2000, single=False, centred=True, most_bytes=4e9) == products_bytes(8000)
    with pytest.raises(UserError, match=r"2000 prompts have up to 8000 .* ask fewer prompts"):
        check_size(2000, single=False, centred=True, most_bytes=1e9)
    fits = MOST_VECTORS // 2
    check_size(fits, single=False, centred=False, most_bytes=1e12)
    with pytest.raises(UserError, match="at most 32768 vectors"):
        check_size(fits + 1, single=False, centred=False, most_bytes=1e12)
