"""The command under torchrun: the numbers of one process, one folder, one voice."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from passgrad.lm.models import save_model

ANSWERS = ["a", "b", "a", "ab", "b", "a"]
QUESTIONS = ["a\nb=", "aabb\na=", "ab\nab=", "b\na=", "bb\nb=", "ba\nbb="]


@pytest.mark.slow
def test_two_processes_and_one_agree(make_tokenizer, tiny_model, tmp_path):
    tokenizer = make_tokenizer("ab=\n")
    save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, tmp_path / "model")
    lines = [
        json.dumps({"prompt": question, "answer": answer})
        for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")

    def run(*launcher, out):
        command = [
            *launcher, "-m", "passgrad.cli", "measure", "--model", str(tmp_path / "model"),
            "--prompts", str(tmp_path / "prompts.jsonl"), "--stop", "\n", "--max-new-tokens", "4",
            "--engine", "transformers", "--samples", "64", "--ks", "1,2,4", "--reading", "fixed",
            "--out", str(tmp_path / out),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    one = run(sys.executable, out="one")
    two = run(
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        out="two",
    )  # fmt: skip
    assert two.splitlines()[0] == one.splitlines()[0]  # the verdict, said once
    assert two.count("report.html") == 1
    for name in ("curve", "prompts", "parts", "step"):
        first, second = (pd.read_parquet(tmp_path / f / f"{name}.parquet") for f in ("one", "two"))
        numbers = first.select_dtypes("number").columns
        np.testing.assert_allclose(
            second[numbers], first[numbers], rtol=2e-4, atol=2e-5, err_msg=name
        )
    record = json.loads((tmp_path / "two" / "measurement.json").read_text())
    assert record["provenance"]["processes"] == 2
