"""Completions from both engines: one kind of table, one law."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import time
import types

import pytest
import torch
from scipy.stats import binomtest, chi2

from passgrad.errors import UserError
from passgrad.lm.logprobs import pack, packed_logprobs
from passgrad.lm.models import save_model
from passgrad.lm.rollouts import SCHEMA, Request, Sampling
from passgrad.lm.tokens import TokenizedPrompt, encode
from passgrad.rollouts import sampling, vllm_engine, vllm_worker
from passgrad.rollouts.sampling import VLLM_MISSING, sample, vllm_problem
from passgrad.rollouts.vllm_engine import EngineError
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.conventions import conventions
from passgrad.worlds.language import LanguageWorld

N = 100
NAME = "smollm2-135m"
#: fixtures with completions of the embedded model
ENGINES = [
    pytest.param("transformers_draws", id="transformers"),
    pytest.param("vllm_engine_draws", id="vllm"),
]


# --- the embedded model, both engines


@pytest.fixture(scope="module")
def task():
    return conventions(num_prompts=(3, 1), seed=1)


@pytest.fixture(scope="module")
def transformers_draws(smollm2, task):
    return sample(NAME, task, num_samples=N, engine="transformers", settings=Sampling(seed=5))


@pytest.fixture(scope="module")
def vllm_engine_draws(vllm, task):
    return sample(NAME, task, num_samples=N, engine="vllm", settings=Sampling(seed=5))


@pytest.fixture
def drawn(request, smollm2):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("drawn", ENGINES, indirect=True)
def test_the_table_is_the_same_for_both(drawn, task):
    assert drawn.table.schema == SCHEMA
    assert drawn.num_samples == N
    assert drawn.prompt_ids == [prompt.id for prompt in task.prompts]
    rows = drawn.table.to_pylist()
    assert [row["sample"] for row in rows] == list(range(N)) * len(task.prompts)
    assert {row["engine"] for row in rows} <= {"vllm", "transformers"}
    by_id = {prompt.id: prompt for prompt in task.prompts}
    for row in rows:
        prompt = by_id[row["prompt_id"]]
        assert row["prompt"] == prompt.text
        assert row["group"] == prompt.group
        law = Sampling(**{name: row[name] for name in ("seed", "temperature", "top_p", "top_k")})
        assert law == Sampling(seed=5)
        assert row["stop"] == task.stop
        assert len(row["completion_ids"]) <= task.max_new_tokens == row["max_new_tokens"]
        assert row["logprob"] < 0


@pytest.mark.parametrize("drawn", ENGINES, indirect=True)
def test_rewards_and_reasons_follow_from_the_tokens(drawn, task, smollm2):
    _, tokenizer = smollm2
    [stop] = tokenizer("\n")["input_ids"]
    answers = {prompt.id: prompt.answer for prompt in task.prompts}
    reasons = set()
    for row in drawn.table.to_pylist():
        *body, last = row["completion_ids"]
        assert stop not in body
        reasons.add(row["finish_reason"])
        if row["finish_reason"] == "stop":
            assert last == stop
            assert row["completion"] == tokenizer.decode(body)
            assert row["reward"] == (row["completion"] == answers[row["prompt_id"]])
        else:
            assert row["finish_reason"] == "length"
            assert len(row["completion_ids"]) == task.max_new_tokens
            assert row["reward"] == 0
    assert reasons == {"stop", "length"}


@pytest.mark.parametrize("drawn", ENGINES, indirect=True)
def test_stored_logprobs_are_those_of_the_model(drawn, task, smollm2):
    """Every distinct completion is scored again."""
    model, tokenizer = smollm2
    stored = {
        (row["prompt"], tuple(row["completion_ids"])): row["logprob"]
        for row in drawn.table.to_pylist()
    }
    sequences = list(stored)
    assert len(sequences) > 20
    prompts = [TokenizedPrompt(tuple(encode(tokenizer, text)), ids) for text, ids in sequences]
    for row in pack(prompts):
        with torch.no_grad():
            exact = packed_logprobs(model, row).tolist()
        for member, value in zip(row.members, exact, strict=True):
            assert stored[sequences[member]] == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize("drawn", ENGINES, indirect=True)
def test_frequencies_are_those_of_the_model(drawn, task, smollm2):
    """Right answers against their exact rates; first tokens against the whole law of the model."""
    model, tokenizer = smollm2
    p = LanguageWorld(model, tokenizer, task.prompts, stop=task.stop).success()
    for count, chance in zip(drawn.num_correct, p.tolist(), strict=True):
        assert binomtest(int(count), N, chance).pvalue > 1e-5
    rows = drawn.table.to_pylist()
    # Tokens that are not expected five times stand in one class, as the test asks for.
    observed, expected, colder = [], [], []
    for prompt in task.prompts:
        with torch.no_grad():
            logits = model(torch.tensor([encode(tokenizer, prompt.text)])).logits[0, -1].double()
        law, cold = logits.softmax(0), (logits / 0.7).softmax(0)
        first = [r["completion_ids"][0] for r in rows if r["prompt_id"] == prompt.id]
        common = (N * law >= 5).nonzero()[:, 0].tolist()
        counts = [first.count(token) for token in common]
        observed += [*counts, N - sum(counts)]
        for table, chances in ((expected, law), (colder, cold)):
            table += [*(N * chances[common]).tolist(), N * float(1 - chances[common].sum())]
    classes = len(observed) - len(task.prompts)
    assert classes >= 6

    def surprise(table):
        statistic = sum((o - e) ** 2 / e for o, e in zip(observed, table, strict=True))
        return chi2.sf(statistic, classes)

    assert surprise(expected) > 1e-5
    # The test has the power to notice a temperature of 0.7.
    assert surprise(colder) < 1e-5


def test_a_worker_that_cannot_load_says_why(vllm, tmp_path):
    """vLLM itself refuses: the reason arrives in one line, and nothing hangs."""
    with pytest.raises(EngineError, match=r"\w+: .+") as caught:
        vllm_engine.draw(Request(str(tmp_path), ((1, 2),), 1, (3,), 2))
    assert "\n" not in str(caught.value)


# --- the law, on tiny models


@pytest.fixture(scope="module")
def small(make_tokenizer, tiny_model, tmp_path_factory):
    """A saved model over four characters, whose folder asks for greedy decoding."""
    tokenizer = make_tokenizer("ab=\n")
    place = tmp_path_factory.mktemp("small") / "model"
    save_model(tiny_model(tokenizer=tokenizer, dtype="float32"), tokenizer, place)
    asks = {"do_sample": True, "top_k": 1, "temperature": 0.01, "max_new_tokens": 1}
    (place / "generation_config.json").write_text(json.dumps(asks))
    return place


def tiny_task(prompts=None, stop="\n", limit=5):
    prompts = prompts or (Prompt("a\n", "b=", "a", "", "one"), Prompt("aabb\n", "a=", "b", "", "x"))
    return Task("tiny", prompts, exact_match, stop, limit)


def completions(drawn):
    return drawn.table["completion_ids"].to_pylist()


def test_the_folders_own_settings_do_not_enter(small):
    drawn = sample(small, tiny_task(), num_samples=64, engine="transformers")
    assert len({tuple(ids) for ids in completions(drawn)}) > 10
    assert max(map(len, completions(drawn))) == 5


def test_the_settings_asked_for_do(small):
    greedy = Sampling(top_k=1)
    drawn = sample(small, tiny_task(), num_samples=16, engine="transformers", settings=greedy)
    assert len({(row["prompt_id"], row["completion"]) for row in drawn.table.to_pylist()}) == 2
    cold = Sampling(temperature=1e-4)
    again = sample(small, tiny_task(), num_samples=16, engine="transformers", settings=cold)
    assert completions(again) == completions(drawn)
    # The log-probability is that of the policy, whatever law was drawn from.
    assert drawn.table["logprob"].to_pylist() == again.table["logprob"].to_pylist()
    assert max(drawn.table["logprob"].to_pylist()) < -0.1


def test_progress_counts_completions(small, shown):
    sample(small, tiny_task(), num_samples=100, engine="transformers", progress=shown)
    assert shown.stages == [["drawing completions", 200, 200]]


def test_a_seed_gives_the_same_draw_and_leaves_the_global_one(small):
    torch.manual_seed(17)
    state = torch.get_rng_state()
    options = {"num_samples": 32, "engine": "transformers"}
    first = sample(small, tiny_task(), settings=Sampling(seed=1), **options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(18)
    again = sample(small, tiny_task(), settings=Sampling(seed=1), **options)
    other = sample(small, tiny_task(), settings=Sampling(seed=2), **options)
    assert completions(first) == completions(again) != completions(other)


def test_completions_of_one_batch_are_independent(small):
    """Prompts of unlike length share a batch, padded: each must see its own text only."""
    prompts = (Prompt("", "b=", "a", "", "short"), Prompt("ab=a\n" * 9, "b=", "a", "", "long"))
    task = tiny_task(prompts, limit=1)
    together = sample(small, task, num_samples=3000, engine="transformers")
    model, tokenizer = sampling_model(small)
    for prompt in prompts:
        with torch.no_grad():
            ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
            law = model(ids).logits[0, -1].softmax(0)
        rows = [r for r in together.table.to_pylist() if r["prompt_id"] == prompt.id]
        for token, chance in enumerate(law.tolist()):
            count = sum(r["completion_ids"] == [token] for r in rows)
            assert binomtest(count, len(rows), chance).pvalue > 1e-5


def sampling_model(place):
    from passgrad.lm.models import load_model

    return load_model(place)


def test_an_end_token_before_the_stop_is_no_success(small):
    """With a stop of the task's own, the model's end token is a token like any other."""
    drawn = sample(small, tiny_task(), num_samples=400, engine="transformers")
    with_end = [row for row in drawn.table.to_pylist() if 0 in row["completion_ids"]]
    assert with_end
    assert all("<end>" in row["completion"] for row in with_end)
    assert not any(row["reward"] for row in with_end)
    assert any(row["completion_ids"][-1] != 0 for row in with_end)


def test_without_a_stop_the_end_token_ends(small):
    drawn = sample(small, tiny_task(stop=None), num_samples=200, engine="transformers")
    rows = drawn.table.to_pylist()
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    assert all(row["stop"] is None for row in rows)
    for row in rows:
        assert (row["finish_reason"] == "stop") == (row["completion_ids"][-1] == 0)
        assert "<end>" not in row["completion"]
        # A completion that was cut off is still judged where nothing but the model ends one.
        prompt = {p.id: p for p in tiny_task().prompts}[row["prompt_id"]]
        assert row["reward"] == exact_match(row["completion"], prompt)


# --- which engine, and what happens without one


def test_auto_falls_back_and_says_why(small, monkeypatch):
    monkeypatch.setattr(sampling, "vllm_problem", lambda: "this processor has no AVX2")
    with pytest.warns(UserWarning, match="transformers, which is slower: this processor has no A"):
        drawn = sample(small, tiny_task(), num_samples=2)
    assert set(drawn.table["engine"].to_pylist()) == {"transformers"}
    with pytest.raises(UserError, match="vLLM cannot draw here: this processor has no AVX2; use"):
        sample(small, tiny_task(), num_samples=2, engine="vllm")


@pytest.mark.parametrize(
    ("returncode", "response", "reason"),
    [
        (-9, None, r"its process ended with status -9 \(out of memory"),
        (1, None, "its process ended with status 1"),
        (0, {"error": "RuntimeError: no room"}, "RuntimeError: no room"),
    ],
)
def test_a_worker_that_dies_is_replaced(small, monkeypatch, returncode, response, reason):
    def run(command, output, watch):
        if response:
            with open(command[-1], "w") as file:
                json.dump(response, file)
        return returncode

    monkeypatch.setattr(sampling, "vllm_problem", lambda: None)
    monkeypatch.setattr(vllm_engine, "_run", run)
    with pytest.raises(EngineError, match=reason):
        vllm_engine.draw(Request(str(small), ((1,),), 1, (4,), 2))
    with pytest.warns(UserWarning, match=reason):
        drawn = sample(small, tiny_task(), num_samples=2)
    assert set(drawn.table["engine"].to_pylist()) == {"transformers"}
    with pytest.raises(UserError, match=f"vLLM cannot draw here: {reason}"):
        sample(small, tiny_task(), num_samples=2, engine="vllm")


#: the end of what vLLM says when its engine's own process fails
SAID = """\
(EngineCore pid=7) ERROR 11-30 15:31:02 [core.py:1140] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-30 15:31:02 [core.py:1140]     raise ValueError(
(EngineCore pid=7) ERROR 11-30 15:31:02 [core.py:1140] ValueError: No memory for the cache blocks.
Traceback (most recent call last):
  File "worker.py", line 1, in main
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
NO_CAUSE = "RuntimeError: Engine core initialization failed. See root cause above."


@pytest.mark.parametrize("answer", [{"error": NO_CAUSE}, None])
def test_the_reason_of_the_engines_own_process_is_kept_and_named(
    small, tmp_path, monkeypatch, answer
):
    def run(command, output, watch):
        output.write_text(SAID)
        if answer:
            pathlib.Path(command[-1]).write_text(json.dumps(answer))
        return 1

    monkeypatch.setattr(sampling, "vllm_problem", lambda: None)
    monkeypatch.setattr(vllm_engine, "_run", run)
    kept = tmp_path / "folder" / "said.log"
    request = Request(str(small), ((1,),), 1, (4,), 2)
    with (
        vllm_engine.output_kept_in(kept),
        pytest.raises(
            EngineError, match=rf"^ValueError: No memory for the cache blocks \(all .* in {kept}\)$"
        ),
    ):
        vllm_engine.draw(request)
    assert kept.read_text() == SAID
    with pytest.raises(EngineError, match="^ValueError: No memory for the cache blocks$"):
        vllm_engine.draw(request)


def test_a_worker_is_watched(processes, tmp_path, monkeypatch, shown):
    """It tells what it has, and that it has nothing yet."""
    monkeypatch.setattr(vllm_engine, "_LOOK", 0.05)
    monkeypatch.setattr(vllm_engine, "_SILENCE", 0.2)
    told = tmp_path / "drawn.txt"
    code = (
        "import pathlib, sys, time\nfile = pathlib.Path(sys.argv[1])\ntime.sleep(1)\n"
        "file.write_text('3')\ntime.sleep(1)\nfile.write_text('8')\ntime.sleep(1)"
    )
    shown.stage("drawing completions", 8)
    watch = vllm_engine._Watch(told, shown)
    assert vllm_engine._run([sys.executable, "-c", code, str(told)], None, watch) == 0
    assert shown.stages == [["drawing completions", 8, 8]]
    assert "vLLM starts, or draws" in shown.notes[0]
    assert "no further prompt done yet" in shown.notes[-1]


def test_what_a_worker_says_is_caught(processes, tmp_path):
    code = "import sys; print('one'); print('two', file=sys.stderr)"
    assert vllm_engine._run([sys.executable, "-c", code], tmp_path / "said") == 0
    assert sorted((tmp_path / "said").read_text().split()) == ["one", "two"]


def test_vllm_is_told_every_part_of_the_law(monkeypatch, tmp_path, capfd):
    """And to leave the model folder's own alone; it tells how far it is."""
    told = {}

    class LLM:
        def __init__(self, **options):
            told.update(options)

        def generate(self, prompts, law, use_tqdm):
            told.update(vars(law))
            # As vLLM uses it: around the prompts, and for what is done.
            assert list(use_tqdm(prompts, desc="Rendering prompts")) == list(prompts)
            assert not (tmp_path / "drawn.txt").exists()
            bar = use_tqdm(total=1, desc="Processed prompts", dynamic_ncols=True, postfix="")
            assert bar.format_dict["elapsed"] >= 0
            bar.postfix = "est. speed"
            bar.update(3)
            bar.refresh()
            bar.close()
            return []

    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    request = Request("m", ((1, 2),), 3, (4, 5), 6, Sampling(temperature=0.5, top_p=0.9, top_k=7))
    vllm_worker.generate(dataclasses.asdict(request), tmp_path / "drawn.txt")
    assert (tmp_path / "drawn.txt").read_text() == "3"
    assert capfd.readouterr() == ("", "")
    assert told["generation_config"] == "vllm"
    assert (told["temperature"], told["top_p"], told["top_k"]) == (0.5, 0.9, 7)
    assert (told["min_p"], told["repetition_penalty"], told["min_tokens"]) == (0, 1, 0)
    assert told["stop_token_ids"] == (4, 5)
    assert told["ignore_eos"]


#: a worker that starts a process of its own, as vLLM does, and says who that is
PARENT = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
"""


def alive(pid):
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


linux = pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="asks /proc")


@linux
def test_no_process_of_the_worker_is_left(processes, tmp_path):
    note = tmp_path / "pid"
    assert vllm_engine._run([sys.executable, "-c", PARENT, str(note)]) == 0
    wait_until(lambda: not alive(int(note.read_text())))


@linux
def test_a_killed_caller_takes_the_worker_along(processes, tmp_path):
    """Killed outright, the caller cleans nothing up: the worker notices the closed pipe."""
    note = tmp_path / "pid"
    worker = f"""
import threading
from passgrad.rollouts.vllm_worker import end_with_the_caller
threading.Thread(target=end_with_the_caller, daemon=True).start()
{PARENT}
import time; time.sleep(60)
"""
    caller = f"""
import sys
from passgrad.rollouts.vllm_engine import _run
_run([sys.executable, "-c", {worker!r}, {str(note)!r}])
"""
    process = subprocess.Popen([sys.executable, "-c", caller])
    wait_until(lambda: note.exists() and note.read_text())
    child = int(note.read_text())
    assert alive(child)
    process.kill()
    process.wait()
    wait_until(lambda: not alive(child))


@pytest.mark.parametrize(("cores", "bound"), [(1, True), (2, True), (4, False), (64, False)])
def test_a_small_machine_is_used_whole(monkeypatch, cores, bound):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert vllm_engine._small_machine() == (
        {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cores)} if bound else {}
    )


def test_the_worker_answers_errors_too(tmp_path, monkeypatch):
    asked, answered = tmp_path / "request.json", tmp_path / "response.json"
    asked.write_text("{}")

    def fail(request, told):
        raise RuntimeError("first line\nthe reason")

    monkeypatch.setattr(vllm_worker, "generate", fail)
    vllm_worker.main(asked, answered)
    assert json.loads(answered.read_text()) == {"error": "RuntimeError: the reason"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request.json", "response.json"]


@pytest.mark.parametrize(
    ("patch", "problem"),
    [
        (("sys.platform", "darwin"), "vLLM does not run on darwin"),
        (("platform.machine", lambda: "aarch64"), "for x86-64, and this machine is aarch64"),
        (("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT"), "has no AVX2"),
        (("importlib.util.find_spec", lambda name: None), VLLM_MISSING),
    ],
)
def test_why_vllm_cannot_run(monkeypatch, patch, problem):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert vllm_problem() is None
    monkeypatch.setattr(*patch)
    assert problem in vllm_problem()


# --- refusals


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"num_samples": 0}, "num_samples is 0; draw at least one"),
        ({}, {"engine": "sglang"}, "unknown engine 'sglang'; the engines are auto, vllm, tra"),
        ({"stop": "=\n"}, {}, r"the stop '=\\n' is 2 tokens for this model"),
        ({"stop": ""}, {}, "stop is empty"),
        ({"prompts": (Prompt("", "", "a", "", "void"),)}, {}, "prompt 'void' is empty"),
    ],
)
def test_refusals(small, changes, options, message):
    options = {"num_samples": 1, "engine": "transformers"} | options
    with pytest.raises(UserError, match=message) as caught:
        sample(small, tiny_task(**changes), **options)
    assert "\n" not in str(caught.value)


def test_a_task_without_prompts_is_refused(small):
    with pytest.raises(UserError, match="the task none has no prompts"):
        sample(small, Task("none", (), exact_match, "\n", 4), num_samples=1)


def test_examples_that_end_otherwise_are_refused(tiny_model, tiny_tokenizer, tmp_path):
    place = save_model(tiny_model(dtype="float32"), tiny_tokenizer, tmp_path / "model")
    task = tiny_task((Prompt("4+4=8\n", "1+1=", "2", "", "trap"),))
    with pytest.raises(UserError, match=r"prompt 'trap': the stop '\\n' at character 5"):
        sample(place, task, num_samples=1, engine="transformers")


def test_a_model_without_any_end_is_refused(tiny_model, make_tokenizer, tmp_path):
    tokenizer = make_tokenizer("ab=\n")
    model = tiny_model(tokenizer=tokenizer, dtype="float32")
    tokenizer.eos_token = None
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    place = save_model(model, tokenizer, tmp_path / "model")
    with pytest.raises(UserError, match="has no stop and the model no end token"):
        sample(place, tiny_task(stop=None), num_samples=1, engine="transformers")
