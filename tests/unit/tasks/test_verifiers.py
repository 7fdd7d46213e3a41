"""Judging in bounded time: ordinary answers, hostile ones, and judges that misbehave."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt
from passgrad.tasks.judges import About
from passgrad.tasks.verifiers import Verifier

pytestmark = pytest.mark.usefixtures("processes")  # every judge is one

JUDGES = """
import os, sys, threading, time, signal, subprocess
from pathlib import Path

def judge(completion, answer):
    if completion == "hang":
        while True: pass
    if completion == "sleep": time.sleep(1000)
    if completion == "power": return 9 ** 9 ** 9 ** 9
    if completion == "deaf":
        for one in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
            signal.signal(one, signal.SIG_IGN)
        while True:
            try: time.sleep(1000)
            except BaseException: pass
    if completion == "raise": raise RuntimeError("no")
    if completion == "exit": sys.exit(0)
    if completion == "leave": os._exit(0)
    if completion == "abort": os.abort()
    if completion == "memory": return len(bytearray(8 << 30)) > 0
    if completion == "recursion": return judge(completion, answer)
    if completion == "half": return 0.5
    if completion == "none": return None
    if completion == "one": return 1.0
    if completion == "print": print("x" * 100000); sys.stderr.write("y" * 100000)
    if completion == "child":
        child = subprocess.Popen(["sleep", "1000"])
        Path(answer).write_text(str(child.pid))
        time.sleep(1000)
    if completion == "pid": Path(answer).write_text(str(os.getpid()))
    if completion == "count":
        with open(answer, "a") as file: file.write("x")
    if completion == "numpy":
        import numpy
        return numpy.bool_(True)
    return completion == answer

wrong = 3
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("judges") / "my_judges.py"
    path.write_text(JUDGES)
    return path


@pytest.fixture(scope="module")
def mine(file):
    with Verifier(f"{file}:judge", seconds=0.5, memory_mib=512) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def math():
    with Verifier("math", seconds=1) as verifier:
        yield verifier


def test_exact_ignores_white_space_at_the_ends():
    verifier = Verifier("exact")
    rewards, incidents = verifier.verify_all([" 12\n", "12", "1 2", "twelve"], ["12"] * 4)
    assert rewards.tolist() == [1, 1, 0, 0]
    assert incidents == []
    assert verifier(" 12", Prompt("", "?", "12"))
    assert verifier._worker is None


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        ("so $\\frac{1}{2}$", "1/2", 1),
        ("0.5", "\\frac{1}{2}", 1),
        ("\\boxed{\\frac12}", "0.5", 1),
        ("the answer is 1,234", "1234", 1),
        ("first 12, then \\boxed{13}", "12", 0),
        ("$x+1$", "1+x", 1),
        ("I do not know", "12", 0),
        ("", "12", 0),
    ],
)
def test_math(math, completion, answer, reward):
    rewards, incidents = math.verify_all([completion], [answer])
    assert rewards.tolist() == [reward]
    assert incidents == []


def test_hostile_mathematics_stops_nothing(math):
    hostile = [
        "9**9**9**9",
        "$9^{9^{9^{9}}}$",
        "9" * 10**6,
        "(" * 10**5 + "1" + ")" * 10**5,
        "$" + "{" * 10**5 + "1" + "}" * 10**5 + "$",
        "\\boxed{1000000!}",
    ]
    mixed = [text for one in hostile for text in (one, "12")]
    began = time.monotonic()
    rewards, incidents = math.verify_all(mixed, ["12"] * len(mixed))
    taken = time.monotonic() - began
    assert rewards.tolist() == [0, 1] * len(hostile)
    named = {one.places[0] for one in incidents}
    assert named <= set(range(0, len(mixed), 2))
    assert {2, 10} <= named
    assert all(len(one.completion) <= 80 for one in incidents)
    # The limit, and a new process with sympy, for each.
    assert taken < 4 * len(hostile)


@pytest.mark.parametrize("completion", ["hang", "sleep", "power", "deaf"])
def test_a_judge_that_does_not_return_is_killed(mine, completion):
    began = time.monotonic()
    rewards, [incident] = mine.verify_all(["a", completion, "b"], ["a", "x", "b"])
    assert 0.5 <= time.monotonic() - began < 5
    assert rewards.tolist() == [1, 0, 1]
    assert incident.places == (1,)
    assert "no verdict in 0.5 seconds" in incident.reason


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("raise", "raised RuntimeError"),
        ("exit", "raised SystemExit"),
        ("recursion", "raised RecursionError"),
        ("memory", "raised MemoryError"),
        ("leave", "process died"),
        ("abort", "process died"),
        ("half", "returned 0.5"),
        ("none", "returned None"),
    ],
)
def test_a_judge_without_a_verdict_is_reported(mine, completion, reason):
    rewards, [incident] = mine.verify_all([completion, "a", completion], ["x", "a", "x"])
    assert rewards.tolist() == [0, 1, 0]
    assert incident.places == (0, 2)
    assert reason in incident.reason
    assert reason in str(incident)
    assert "\n" not in str(incident)


@pytest.mark.parametrize(("completion", "reward"), [("one", 1), ("numpy", 1), ("print", 0)])
def test_ordinary_verdicts(mine, completion, reward):
    rewards, incidents = mine.verify_all([completion], ["x"])
    assert rewards.tolist() == [reward]
    assert incidents == []


def test_identical_pairs_are_judged_once(mine, tmp_path):
    path, other = tmp_path / "count", tmp_path / "other"
    mine.verify_all(["count"] * 5, [str(path)] * 4 + [str(other)])
    assert (path.read_text(), other.read_text()) == ("x", "x")


def test_what_a_judge_starts_is_killed_with_it(mine, tmp_path):
    path = tmp_path / "pid"
    mine.verify_all(["child"], [str(path)])
    pid = int(path.read_text())
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # dead, and waiting for whoever inherited it
            return
        time.sleep(0.1)
    pytest.fail("the child lives")


def test_any_thread_may_ask(mine):
    results = {}

    def ask(name):
        results[name] = mine.verify_all([name, "hang", name], [name, "x", "y"])[0].tolist()

    threads = [threading.Thread(target=ask, args=(f"t{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == {f"t{i}": [1, 0, 0] for i in range(3)}


def test_more_pairs_than_one_batch(mine):
    names = [str(i) for i in range(1000)]
    rewards, incidents = mine.verify_all(names, [n if int(n) % 3 else "no" for n in names])
    np.testing.assert_array_equal(rewards, [float(i % 3 > 0) for i in range(1000)])
    assert incidents == []
    assert mine.verify_all([], [])[0].shape == (0,)


def test_an_orphan_ends_by_itself(file):
    """A worker whose parent no longer watches is ended by the kernel."""
    verifier = Verifier(f"{file}:judge", seconds=0.1).start()
    worker = verifier._worker
    worker.requests.send([("hang", "x", About())])
    began = time.monotonic()
    assert worker.verdicts.poll(20)
    with pytest.raises(EOFError):
        worker.verdicts.recv()
    assert 4 < time.monotonic() - began < 10
    verifier.close()


def test_the_process_ends_with_the_verifier(file, tmp_path):
    verifier = Verifier(f"{file}:judge")

    def process_of(verifier):
        verifier.verify_all(["pid"], [str(tmp_path / "pid")])
        return int((tmp_path / "pid").read_text())

    pid = process_of(verifier)
    assert process_of(verifier) == pid
    os.kill(pid, 0)
    verifier.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    verifier.close()
    pid = process_of(verifier)  # starts again
    os.kill(pid, 0)
    del verifier
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_module_and_a_function_by_itself():
    import operator

    for spec in ("operator:eq", operator.eq):
        with Verifier(spec) as verifier:
            # Named where it is defined, which for C functions is another module.
            assert verifier.verify_all(["a", "b"], ["a", "a"])[0].tolist() == [1, 0]


def test_gsm8k_keeps_its_rules():
    with Verifier("gsm8k") as verifier:
        assert verifier.verify_all(
            ["so #### 1,200", "so 1200", "#### 9**9**9**9", "#### 1200%", "#### $1200.00!"],
            ["1200"] * 5,
        )[0].tolist() == [1, 0, 0, 1, 1]


def test_gym_takes_the_tagged_answer_and_full_scores_alone():
    with Verifier("gym:chain_sum") as verifier:
        rewards, incidents = verifier.verify_all(
            ["214", "hm <answer>3</answer>, no <answer> 214 </answer>", "214 or so", " 214\n", ""],
            ["214"] * 5,
        )
    assert rewards.tolist() == [1, 1, 0, 1, 0]
    assert incidents == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("exactly", "unknown verifier 'exactly': did you mean 'exact'.; the forms are exact, math"),
        ("nowhere/judge.py:f", "nowhere/judge.py: no such file"),
        ("a module:f", "unknown verifier"),
        (":f", "unknown verifier"),
        ("operator:", "unknown verifier"),
        ("gym:chain_sums", "no data set 'chain_sums'.*chain_sum"),
        (lambda c, a: True, "lambda.*top of a module"),
    ],
)
def test_names_that_are_none(spec, says):
    with pytest.raises(UserError, match=says) as caught:
        Verifier(spec)
    assert "\n" not in str(caught.value)


def test_judges_that_cannot_be_loaded(file, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    leaving = tmp_path / "leaving.py"
    leaving.write_text("import os; os._exit(3)\n")
    for spec, says in [
        (f"{file}:missing", "AttributeError"),
        (f"{file}:wrong", "not a function"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        (f"{broken}:f", "SyntaxError"),
        (f"{leaving}:f", "ended while it was loaded"),
    ]:
        with pytest.raises(UserError, match=says) as caught:
            Verifier(spec).verify_all(["a"], ["a"])
        assert "\n" not in str(caught.value)


def test_limits_and_lists_are_checked():
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="limit"):
            Verifier("exact", seconds=seconds)
    with pytest.raises(UserError, match="memory"):
        Verifier("exact", memory_mib=0)
    with pytest.raises(UserError, match="2 completions and 1 answers"):
        Verifier("exact").verify_all(["a", "b"], ["a"])
    with pytest.raises(UserError, match="completion 1 is None"):
        Verifier("exact").verify_all(["a", None], ["a", "a"])


def test_entries_stand_in_for_answers(file):
    verifier = Verifier("exact", entries={"x": "7"})
    prompts = [Prompt("", "?", "8", "", "x"), Prompt("", "?", "8", "", "y")]
    assert verifier.judge(["7", "7"], prompts)[0].tolist() == [1, 0]
    assert verifier("7", prompts[0])


def test_thousands_a_second():
    names = [str(i) for i in range(20_000)]
    began = time.monotonic()
    Verifier("exact").verify_all(names, ["7"] * len(names))
    assert time.monotonic() - began < 2


def test_incidents_of_single_calls_are_kept(file):
    prompt = Prompt("", "?", "a", "", "x")
    with Verifier(f"{file}:judge", seconds=0.5) as verifier:
        assert [verifier(text, prompt) for text in ("a", "raise", "hang", "b")] == [1, 0, 0, 0]
        assert [one.completion for one in verifier.incidents] == ["raise", "hang"]
        assert verifier.verdict("raise", "a").reason == "the verifier raised RuntimeError: no"
