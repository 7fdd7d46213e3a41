"""Logs of trainers as counts: what is read, and the line that names what is not."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from passgrad.errors import UserError
from passgrad.measurement.logs.counting import Columns, read_visits


def _rows(steps: int = 3, prompts: int = 2, answers: int = 4) -> list[dict[str, Any]]:
    return [
        {"prompt": f"What is {prompt} + 1?", "step": step, "reward": float(answer <= step)}
        for step in range(steps)
        for prompt in range(prompts)
        for answer in range(answers)
    ]


def _table(visits: Any) -> list[tuple[str, int, int, int]]:
    return sorted(
        (visits.prompt_ids[p], int(s), int(n), int(c))
        for p, s, n, c in zip(
            visits.prompt, visits.step, visits.num_samples, visits.num_correct, strict=True
        )
    )


MEANT = [(f"What is {prompt} + 1?", step, 4, step + 1) for prompt in range(2) for step in range(3)]


@pytest.mark.parametrize(
    "ending", ["jsonl", "jsonl.gz", "json", "jsonl.xz", "parquet", "csv", "csv.gz"]
)
def test_every_format_says_the_same(tmp_path: Path, ending: str) -> None:
    path, frame = tmp_path / f"log.{ending}", pd.DataFrame(_rows())
    if "parquet" in ending:
        frame.to_parquet(path)
    elif "csv" in ending:
        frame.to_csv(path, index=False)
    else:
        lines = "\n".join(map(json.dumps, _rows())) + "\n"
        content = (json.dumps(_rows(), indent=1) if ending == "json" else lines).encode()
        pack = {"gz": gzip.compress, "xz": lzma.compress}.get(ending[-2:], bytes)
        path.write_bytes(pack(content))
    assert _table(read_visits(path)) == MEANT


def test_a_folder_of_steps_as_trl_writes_it(tmp_path: Path) -> None:
    """A file a step, pandas' index column, two reward functions, messages as prompts."""
    for step in range(3):
        rows = [row for row in _rows() if row["step"] == step]
        frame = pd.DataFrame(
            {
                "step": step,
                "prompt": [[{"role": "user", "content": row["prompt"]}] for row in rows],
                "completion": "4",
                "right": [row["reward"] for row in rows],
                "short": 1.0,
                "advantage": 0.5,
            },
            index=np.arange(10, 10 + len(rows)),
        )
        frame.to_parquet(tmp_path / f"completions_{step:05d}.parquet", index=True)
    with pytest.raises(UserError, match=r"2 columns may be the reward \(right, short\)"):
        read_visits(tmp_path)
    visits = read_visits(tmp_path, Columns(reward="right"))
    assert [row[1:] for row in _table(visits)] == [row[1:] for row in MEANT]
    assert visits.texts[0].startswith("What is")


def test_the_index_of_pandas_is_no_reward(tmp_path: Path) -> None:
    frame = pd.DataFrame(_rows()).rename(columns={"reward": "right"})
    frame.to_csv(tmp_path / "log.csv")
    assert _table(read_visits(tmp_path / "log.csv")) == MEANT


def test_verls_files_have_their_step_in_the_name(tmp_path: Path) -> None:
    for step in range(3):
        lines = [
            {"input": row["prompt"], "output": "4", "score": 2 * row["reward"] - 1}
            for row in _rows()
            if row["step"] == step
        ]
        (tmp_path / f"{step}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=r"0.jsonl, row \d: score is -1, .* threshold"):
        read_visits(tmp_path)
    assert _table(read_visits(tmp_path, Columns(threshold=0.0))) == MEANT


def test_lists_of_rewards_and_counts(tmp_path: Path) -> None:
    lists, counts = [], []
    for name, step, n, c in MEANT:
        lists.append({"prompt": name, "step": step, "rewards": [1] * c + [0] * (n - c)})
        counts.append({"prompt": name, "step": step, "num_samples": n, "num_correct": c})
    for number, rows in enumerate((lists, counts)):
        path = tmp_path / f"{number}.parquet"
        pd.DataFrame(rows).to_parquet(path)
        assert _table(read_visits(path)) == MEANT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": 0.5}, r"row 3: reward is 0.5, neither 0 nor 1"),
        ({"reward": None}, r"row 3: reward is missing or not finite"),
        ({"reward": "good"}, r"row 3: reward is 'good'; give a number"),
        ({"step": 1.5}, r"row 3: step is 1.5; give a whole number"),
        ({"step": -1}, r"row 3: step is -1; give a whole number"),
        ({"prompt": None}, r"row 3: prompt is missing"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_bad_row_is_named(
    tmp_path: Path, change: dict[str, Any], message: str, ending: str
) -> None:
    rows = _rows()
    rows[2] |= change
    path = tmp_path / f"log.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    with pytest.raises(UserError, match=message) as error:
        read_visits(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_visits(tmp_path / "nothing.jsonl")
    with pytest.raises(UserError, match="is a folder without files of samples"):
        read_visits(tmp_path)
    (tmp_path / "log.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        read_visits(tmp_path / "log.parquet")
    (tmp_path / "log.jsonl").write_text('{"prompt": "a", "step": 0, "reward": 1}\n{"pro')
    with pytest.raises(UserError, match="line 2: not valid JSON"):
        read_visits(tmp_path / "log.jsonl")


def test_one_step_is_no_run(tmp_path: Path) -> None:
    pd.DataFrame(_rows(steps=1)).to_parquet(tmp_path / "log.parquet")
    with pytest.raises(UserError, match="the log has one step; a change needs at least 2"):
        read_visits(tmp_path / "log.parquet")


def test_the_law_is_kept(tmp_path: Path) -> None:
    frame = pd.DataFrame(_rows())
    frame["temperature"] = np.where(frame["step"] < 2, 1.0, 0.6)
    frame.to_parquet(tmp_path / "log.parquet")
    laws = read_visits(tmp_path / "log.parquet").laws["temperature"]
    assert {value: (steps.first, steps.last) for value, steps in laws.items()} == {
        "1.0": (0, 1),
        "0.6": (2, 2),
    }
