"""What a measurement would take: tokens counted, memory as measured, and what does not fit."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig

from passgrad import cli
from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.measurement.forecast import forecast
from passgrad.measurement.forecast.counted import Counted
from passgrad.measurement.forecast.live import fake_model, most_bytes
from passgrad.measurement.forecast.memory import Setting, Sizes

MIB = 2**20


@pytest.fixture(scope="module")
def place(make_tokenizer, tiny_model, tmp_path_factory):
    from passgrad.lm.models import save_model

    tokenizer = make_tokenizer("ab=\n")
    folder = tmp_path_factory.mktemp("model")
    save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, folder / "tiny")
    rows = [{"prompt": "ab" * n + "=", "answer": "a"} for n in range(1, 5)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_live_memory_is_the_most_at_once():
    mode = torch._subclasses.fake_tensor.FakeTensorMode()

    def work():
        a = torch.ones(1000)  # 4 kB
        b = a * 2
        del a
        c = b[:500]  # no memory of its own
        return (c + 1).sum()

    assert most_bytes(mode, work) == 8000


def test_a_model_without_numbers_has_all_parameters():
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    _, model = fake_model(config, torch.bfloat16)
    assert sum(one.numel() for one in model.parameters()) == 8_030_261_248


def test_tokens_are_counted_by_the_estimate_itself():
    completions = Completions.from_tokens([[1, 2, 3]] * 4, [[[n] * 5 for n in range(8)]] * 4)
    rewards = (torch.arange(8) % 2).double().expand(4, 8)
    masses = torch.full((4,), 0.25, dtype=torch.float64)
    counted = Counted(completions, rewards, masses, lambda some: completions.rows(some))
    one = torch.ones(1, 4, 8, dtype=torch.float64)
    half = one[0] > 0
    half[:, 4:] = False
    counted.directional(one, half)
    # Four equal prompts: their sequences stand once. 3 tokens, and 4 more for each completion.
    assert counted.gradient_tokens == 3 + 8 * 4
    assert counted.derivative_tokens == 3 + 4 * 4


def test_a_dry_run_reads_a_log_as_a_measurement_does(place, tmp_path):
    """Rewards of -1 and 1 need the threshold, as in the measurement."""
    log = tmp_path / "log.jsonl"
    rows = [
        {"prompt": "ab" * n + "=", "completion": "ab"[turn % 2], "reward": (-1) ** turn}
        for n in range(1, 5)
        for turn in range(8)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"rollouts": log, "parts": False, "step": False}
    with pytest.raises(UserError, match="threshold"):
        forecast(str(place / "tiny"), **given)
    assert "GiB" in str(forecast(str(place / "tiny"), threshold=0.0, **given))


def test_a_dry_run_writes_nothing(place, tmp_path, capsys):
    arguments = [
        "measure", "--model", str(place / "tiny"), "--prompts", str(place / "prompts.jsonl"),
        "--samples", "8", "--max-new-tokens", "6", "--out", str(tmp_path / "m"), "--dry-run",
        "--no-step", "--no-parts",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert not end.value.code
    said = capsys.readouterr().out
    assert "4 prompts x 8, each 6 tokens long, as max_new_tokens allows" in said
    assert "GiB a device (gradient" in said
    assert "tokens were timed" in said
    assert not (tmp_path / "m").exists()


def test_dtype_shard_and_parts_change_the_memory(place):
    made = {
        dtype: forecast(
            place / "tiny", place / "prompts.jsonl", samples=8, max_new_tokens=6, dtype=dtype,
            device="cpu", step=False,
        )
        for dtype in ("float32", "bfloat16")
    }  # fmt: skip
    assert set(made["float32"].stages) == {"gradient", "derivatives", "parts"}
    assert made["float32"].forward_tokens == made["bfloat16"].forward_tokens > 0
    assert made["float32"].seconds > 0


@pytest.fixture(scope="module")
def large():
    """An 8B model in its shape, of few layers' worth of rows."""
    config = LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8,
    )  # fmt: skip
    return Sizes(config, Completions.from_tokens([list(range(40))], [[[1, 2, 3], [4, 5, 6]]]))


@pytest.mark.parametrize(
    ("setting", "low", "high"),
    [
        # Weights, a vector and a copy of the weights; weights, tangents and a vector.
        (Setting("float32", 64, 1, False, False), 96, 100),
        (Setting("bfloat16", 64, 1, False, False), 64, 68),
        (Setting("float32", 64, 4, False, False), 24, 40),
    ],
)
def test_eight_billion_parameters(large, processes, setting, low, high):
    assert low < large.peak(setting) / 1e9 < high


def test_what_does_not_fit_is_refused_with_what_does(large, processes):
    found = large.alternative(Setting("float32", 64, 1, False, False), int(75e9))
    assert found.dtype == "bfloat16"
    assert large.peak(found) <= 75e9
    found = large.alternative(Setting("bfloat16", 64, 1, False, False), int(40e9))
    assert found.shards >= 2
    assert "--shard under torchrun with" in str(found)
    assert large.alternative(Setting("bfloat16", 64, 1, False, False), MIB) is None


def test_a_refusal_names_both(place, monkeypatch):
    # The package has a function of the name of the module.
    module = importlib.import_module("passgrad.measurement.forecast.forecast")
    monkeypatch.setattr(module, "_room", lambda group: (0, 1000))
    with pytest.raises(UserError, match=r"this takes .* GiB a device .*no setting fits") as caught:
        forecast(place / "tiny", place / "prompts.jsonl", samples=8, max_new_tokens=6)
    assert "\n" not in str(caught.value)


MEASURED = """
import json, os, psutil, resource, sys
import pandas, pyarrow, torch
from transformers import AutoConfig, AutoModelForCausalLM
from passgrad.lm.completions import Completions
from passgrad.lm.passes import CompletionPasses
from passgrad.measurement.forecast.forecast import PAGES
from passgrad.measurement.forecast.memory import Setting, Sizes

sizes, dtype, budget, place = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
config = AutoConfig.for_model("llama", **sizes)
child = os.fork()
if not child:  # what making a model takes is none of this process
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(place)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
base = psutil.Process().memory_info().rss + PAGES
model = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, dtype))
drawn = [[1 + (7 * i + j * j) % 90 for j in range(40)] for i in range(budget // 40 + 2)]
some = Completions.from_tokens([list(range(1, 90))], [drawn])
passes = CompletionPasses(model, some, torch.zeros(some.shape), token_budget=budget)
passes.directional(passes.gradient(torch.ones(some.shape)))
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
expected = base + Sizes(config, some).peak(Setting(dtype, budget, 1, False, False))
print(json.dumps([taken, expected, base]))
"""
TIED = {
    "vocab_size": 32000, "hidden_size": 640, "intermediate_size": 1792, "num_hidden_layers": 12,
    "num_attention_heads": 10, "num_key_value_heads": 5, "tie_word_embeddings": True,
}  # fmt: skip
UNTIED = TIED | {"tie_word_embeddings": False, "vocab_size": 50000, "num_hidden_layers": 6}


@pytest.mark.parametrize(
    ("sizes", "dtype", "budget"),
    [
        (TIED, "float32", 256), (TIED, "float32", 768), (TIED, "bfloat16", 256),
        (UNTIED, "float32", 512), (UNTIED, "bfloat16", 256),
    ],
)  # fmt: skip
def test_the_forecast_is_what_a_process_takes(measured_memory, tmp_path, sizes, dtype, budget):
    """Within 15 %, of models of some 80 million parameters: the whole, and what is beyond the
    process that has computed nothing yet.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps(sizes), dtype, str(budget), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    taken, expected, base = json.loads(done.stdout.splitlines()[-1])
    assert expected == pytest.approx(taken, rel=0.15)
    assert expected - base == pytest.approx(taken - base, rel=0.15)


@pytest.fixture(scope="session")
def measured_memory():
    """For tests of the memory that a process takes."""
