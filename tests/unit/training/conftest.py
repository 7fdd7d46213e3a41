"""A tiny model in a folder and a file of prompts, for runs of a few steps."""

import json
import string

import pytest


@pytest.fixture(autouse=True)
def without_remarks(quiet):
    """In every test here."""


@pytest.fixture(scope="session")
def given(tmp_path_factory, make_tokenizer, tiny_model):
    """The settings of a run of three steps on nine prompts, as keyword arguments."""
    tmp_path = tmp_path_factory.mktemp("given")
    tokenizer = make_tokenizer([*string.printable.strip(), " ", "\n"])
    tokenizer.padding_side = "left"
    model = tmp_path / "tiny"
    tiny_model(tokenizer=tokenizer, dtype="float32", initializer_range=0.02).save_pretrained(model)
    tokenizer.save_pretrained(model)
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"{'1+1=2;' * (i % 3)}{i}+1=", "answer": str(i)} for i in range(9)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judge = tmp_path / "judge.py"
    judge.write_text(
        "def fourth(completion, answer):\n    return sum(map(ord, completion)) % 4 == 0\n"
    )
    return {
        "model": str(model), "prompts": str(prompts), "held_out": "3", "max_new_tokens": 2,
        "verifier": f"{judge}:fourth", "k": 2, "n": 4, "prompts_per_step": 2, "steps": 3,
        "learning_rate": 1e-2, "eval_every": 1, "eval_samples": 8,
    }  # fmt: skip
