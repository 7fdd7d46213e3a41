"""Files, folders and patterns of logs, and the options that say how they are read."""

import bz2
import gzip
import inspect
import json
import lzma
import re
import warnings
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from passgrad.cli.measure import measure as command
from passgrad.errors import UserError
from passgrad.measurement.options import _OWNER
from passgrad.measurement.run import measure
from passgrad.rollouts import foreign_logs
from passgrad.rollouts.foreign_rollouts import read_foreign
from passgrad.rollouts.logged import Logged
from passgrad.rollouts.readers.files import files_of


def trl_file(folder, step, prompts, rewards=("accuracy_reward", "format_reward"), index=False):
    """A file as TRL's trainer writes it after each step."""
    rows = [(prompt, sample) for prompt in prompts for sample in range(4)]
    table = {
        "step": [step] * len(rows),
        "prompt": [prompt for prompt, _ in rows],
        "completion": [str(sample) for _, sample in rows],
        **{name: [float(sample % (2 + place)) for _, sample in rows]
           for place, name in enumerate(rewards)},
        "advantage": [0.1] * len(rows),
    }  # fmt: skip
    frame = pd.DataFrame(table)
    if index:
        frame = frame[frame.index >= 0].set_axis(range(5, 5 + len(frame)))
    frame.to_parquet(folder / f"completions_{step:05d}.parquet")


@pytest.fixture
def read(tiny_tokenizer):
    def reader(paths, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rollouts = read_foreign(paths, tokenizer=tiny_tokenizer, **options)
        return rollouts, " | ".join(str(one.message) for one in caught)

    return reader


def test_a_folder_as_trl_leaves_it(tmp_path, read):
    prompts = ["1+1=", "3+4=", "5+2=", "2+2=", "0+1=", "4+4="]
    for step in (2, 1, 10):
        trl_file(tmp_path, step, prompts[:2] if step == 1 else prompts[2:4] if step == 2 else
                 prompts[4:], index=True)  # fmt: skip
    (tmp_path / "README.md").write_text("# Completions")
    with pytest.raises(UserError, match=r"2 columns may be the reward \(accuracy_reward, format"):
        read(tmp_path)
    rollouts, said = read(tmp_path, reward="accuracy_reward")
    assert rollouts.num_samples == 4
    # In the order of the steps, 2 before 10.
    assert list(dict.fromkeys(rollouts.table["prompt"].to_pylist())) == prompts
    assert rollouts.rewards.tolist() == [[0, 1, 0, 1]] * 6
    assert "3 training steps (1 to 10)" in said
    assert "--rollout-step (rollout_step=)" in said
    pattern, _ = read(str(tmp_path / "completions_*.parquet"), reward="accuracy_reward")
    several, _ = read(sorted(tmp_path.glob("*.parquet")), reward=["accuracy_reward"])
    assert pattern.table.equals(rollouts.table)
    assert several.table.equals(rollouts.table)
    one, said = read(tmp_path, reward="accuracy_reward", rollout_step=10)
    assert len(one.prompt_ids) == 2
    assert "training steps" not in said


def test_a_sum_of_rewards_needs_a_threshold(tmp_path, read):
    trl_file(tmp_path, 1, ["1+1="])
    names = ["accuracy_reward", "format_reward"]
    with pytest.raises(UserError, match=r"row 2: the reward is 2.0, and .*--threshold"):
        read(tmp_path, reward=names)
    assert read(tmp_path, reward=names, threshold=1)[0].rewards.tolist() == [[0, 1, 1, 0]]
    weighted, _ = read(
        tmp_path, reward={"accuracy_reward": 1, "format_reward": 0.25}, threshold=0.75
    )
    assert weighted.rewards.tolist() == [[0, 1, 0, 1]]
    texts, _ = read(tmp_path, reward=["accuracy_reward=1", "format_reward=0.25"], threshold=0.75)
    assert texts.table.equals(weighted.table)


def test_a_reward_above_the_threshold_is_right(tmp_path, read):
    rows = [
        {"input": "1+1=", "output": "2", "score": score, "step": 1, "acc": score > 0}
        for score in (1.0, -1.0, 0.0, 1.0)
    ]
    path = tmp_path / "1.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for threshold, wanted in ((0.5, [1, 0, 0, 1]), (0, [1, 0, 0, 1]), (-0.5, [1, 0, 1, 1])):
        assert read(path, threshold=threshold)[0].rewards.tolist() == [wanted]
    with pytest.raises(UserError, match=r"-1 to 1, and all are above --threshold .threshold=. -2"):
        read(path, threshold=-2)
    with pytest.raises(UserError, match=r"-1 to 1, and none is above --threshold .threshold=. 1"):
        read(path, threshold=1)
    assert read(path, reward="acc")[0].rewards.tolist() == [[1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl.gz", gzip.compress), ("a.jsonl.bz2", bz2.compress), ("a.jsonl.xz", lzma.compress),
        ("a.jsonl.zst", lambda raw: pa.compress(raw, "zstd", asbytes=True)),
        ("a.jsonl", gzip.compress),
    ],
)  # fmt: skip
def test_compressed_files(tmp_path, read, name, pack):
    lines = [json.dumps({"prompt": "1+1=", "completion": text, "reward": 1}) for text in "23"]
    path = tmp_path / name
    path.write_bytes(pack("\n".join(lines).encode()))
    assert read(path)[0].table["completion"].to_pylist() == ["2", "3"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{name} cannot be read|no samples|not valid JSON"):
        read(path)


def test_tables_in_other_forms(tmp_path, read):
    rows = [{"prompt": "1+1=", "completion": text, "reward": 1, "group": 0} for text in "23"]
    wanted, _ = read(_write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert wanted.table["group"].to_pylist() == ["0", "0"]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv")
    frame.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    _write(tmp_path / "a.json", json.dumps(rows, indent=1))
    for name in ("a.csv", "a.tsv", "a.parquet", "a.json"):
        assert read(tmp_path / name)[0].table.equals(wanted.table), name
    with pytest.raises(UserError, match=r"b.csv, line 3: 2 cells, and the first line names 3"):
        read(_write(tmp_path / "b.csv", "prompt,completion,reward\n1+1=,2,1\n1+1=,2\n"))
    with pytest.raises(UserError, match=r"b.csv, line 2: reward is 'x'; give a number"):
        read(_write(tmp_path / "b.csv", "prompt,completion,reward\n1+1=,2,x\n"))


def _write(path, text):
    path.write_text(text)
    return path


def test_names_without_files(tmp_path):
    (tmp_path / "completions").mkdir()
    for name, says in (
        ("nowhere.jsonl", "no such file; give a file, a folder or a pattern"),
        ("", "a folder without files of samples .*; is .*completions meant"),
        ("*.parquet", "no file matches"),
    ):
        with pytest.raises(UserError, match=says):
            files_of(tmp_path / name)


def test_the_same_prompt_under_several_ids(tmp_path, read):
    rows = [
        {"prompt": prompt, "completion": "2", "reward": 1, "id": f"{prompt}{n}"}
        for prompt in ("1+1=", "3+4=") for n in range(3)
    ]  # fmt: skip
    path = _write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    rollouts, said = read(path)
    assert rollouts.prompt_ids == ["1+1=0", "3+4=0"]
    assert rollouts.num_samples == 3
    assert "4 ids have the prompt of another" in said


def test_unequal_numbers_are_cut_to_what_is_asked_for(tmp_path, read):
    rows = [{"prompt": "1+1=", "completion": str(n), "reward": 1} for n in range(5)]
    rows += [{"prompt": "3+4=", "completion": "7", "reward": 1}] * 2
    path = _write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"between 2 and 5 completions \(the prompt '1' has 2\)"):
        read(path)
    rollouts, said = read(path, per_prompt=2)
    assert rollouts.table["completion"].to_pylist() == ["0", "1", "7", "7"]
    assert "4 of 7 completions are taken, 2 a prompt; 0 of 2 prompts have fewer" in said
    assert len(read(path, per_prompt=3)[0].prompt_ids) == 1
    with pytest.raises(UserError, match="no prompt has 9 completions, the most is 5"):
        read(path, per_prompt=9)


def test_what_is_said_of_the_law(tmp_path, read):
    rows = [{"prompt": "1+1=", "completion": "2", "reward": 1, "temperature": 0.7}]
    path = _write(tmp_path / "a.jsonl", json.dumps(rows[0]))
    said = read(path, settings=["top_p=1", "top_k=-1", "quantised=false"])[1]
    assert "temperature 0.7" in said
    assert "does not say" not in said
    _write(tmp_path / "law.yml", "top_p: 1.0\ntop_k: 0\nquantization: none\nmin_p: 0.1\n")
    assert "min_p 0.1" in read(path, settings=tmp_path / "law.yml")[1]
    with pytest.raises(UserError, match=r"line 1: temperature is 0.7 in the log and 1 in --set"):
        read(path, settings={"temperature": 1})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layout": "tlr"}, "unknown layout 'tlr': did you mean 'trl'"),
        ({"threshold": float("nan")}, "threshold is nan; give a finite number"),
        ({"per_prompt": 0}, "per_prompt is 0; give a whole number"),
        ({"reward": ["a", "a"]}, "reward names 'a' twice"),
        ({"reward": "a=x"}, "reward gives 'a' the weight 'x'"),
        (
            {"settings": {"temprature": 1}},
            "settings has no 'temprature': did you mean 'temperature'",
        ),
        ({"settings": "temperature=hot"}, "settings: temperature is 'hot'; give a number"),
        ({"settings": "nowhere.yml"}, "'nowhere.yml' is no file and not KEY=VALUE"),
        ({"settings": {"top_p": 1.5}}, r"settings: top_p is 1.5; give a number in \(0, 1\]"),
        ({"settings": {"top_k": 0.5}}, "settings: top_k is 0.5; give a whole number"),
    ],
)
def test_options_check_themselves(options, says):
    with pytest.raises(UserError, match=says) as caught:
        Logged(**options)
    assert "\n" not in str(caught.value)


def test_every_option_that_a_message_names_is_there_for_both(root):
    """Messages of the readers say ``--name (name=)``: options of the command and of measure."""
    folder = Path(inspect.getfile(foreign_logs)).parent
    files = [*folder.glob("foreign_*.py"), *folder.glob("readers/*.py"), folder / "logged.py"]
    source = [path.read_text().split('"""', 2)[2] for path in files]
    joined = re.sub(r'"\s*\n\s*f?"', "", "\n".join(source))
    options = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", joined))
    named = re.findall(r"--([a-z][\w-]*) \((\w+)=\)", joined)
    assert {"reward", "threshold", "rollout-step", "settings", "requests"} <= options
    parameters = inspect.signature(command).parameters
    programs = {"log_samples"}
    assert {name.replace("-", "_") for name in options} - programs <= set(parameters)
    for dashed, keyword in named:
        assert dashed.replace("-", "_") == keyword
        assert keyword in _OWNER or keyword in inspect.signature(measure).parameters
    assert {part.name for part in fields(Logged)} <= set(parameters)
    assert not re.findall(r"(?<!\()\b(?:reward|step|layout|requests|settings|stop)=(?= )", joined)
