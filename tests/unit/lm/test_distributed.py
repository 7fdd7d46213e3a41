"""Several processes: the same numbers as one, and one end for all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import Processes, processes, without_launcher
from passgrad.lm.distributed_passes import DistributedPasses, balanced
from passgrad.lm.passes import CompletionPasses

SCRIPT = Path(__file__).with_name("several.py")


def alone(subject, folder):
    """What the first of two processes wrote that nobody watches, as on two machines; the second is
    ended then.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, subject, folder],
            env=dict(os.environ, OMP_NUM_THREADS="1", RANK=rank, LOCAL_RANK=rank, **shared),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        started[0].wait(120)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return json.loads((folder / "0.json").read_text())


@pytest.fixture(scope="module")
def found(several):
    """What two processes with the whole model each found."""
    return several.read("whole")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_same_numbers_as_one_process(found, dtype):
    for one in (both[dtype] for both in found):
        assert one["logprobs"]
        assert one["some"]
        for name in ("gradient", "one", "forward", "forward where", "groups", "estimate"):
            assert one[name] < 1e-6, name
        assert one["none"] == 0
        assert one["nowhere"] == 7 * 8
    assert found[0][dtype]["digest"] == found[1][dtype]["digest"]


def test_in_double_precision_they_differ_by_rounding_alone(found):
    for one in (both["float64"] for both in found):
        for name in ("gradient", "forward", "groups", "estimate"):
            assert one[name] < 1e-13, name


@pytest.mark.parametrize(("dtype", "share"), [("float64", 1e-6), ("float32", 1e-3)])
def test_central_differences(found, dtype, share):
    for one in (both[dtype] for both in found):
        assert one["central exact"] < share
        # The rows are those of one process: the step and the rounding are too.
        assert one["central"] < 1e-6
        assert one["central error"] < 1e-3


def test_all_take_the_step_of_the_first(found):
    assert found[0]["agreed"] == found[1]["agreed"]


def test_a_gradient_is_one_all_reduce(found):
    assert [both["float64"]["reduced"] for both in found] == [1, 1]


def test_each_computes_some_of_the_rows(found):
    rows = [both["float64"]["rows"] for both in found]
    assert sum(rows) == found[0]["float64"]["all"]
    assert min(rows) >= 2


def test_one_row_leaves_one_with_nothing_to_do(found):
    assert [both["rows of one"] for both in found] == [1, 0]
    assert found[0]["gradient of one"] == found[1]["gradient of one"] > 0


def test_an_error_in_one_is_raised_in_all_and_work_goes_on(found):
    first, second = found
    assert first["mistake"] == second["mistake"] == ["UserError", "lower the budget"]
    assert first["fault"] == ["RemoteError", "process 1: ValueError: no such layer"]
    assert second["fault"] == ["ValueError", "no\nsuch layer"]
    # The words by which a lack of memory is told from other errors are kept.
    assert first["memory"][0] == "RuntimeError"
    assert second["memory"][0] == "RemoteError"
    assert "can't allocate memory" in second["memory"][1]
    assert first["after"]
    assert second["after"]


def test_a_refusal_in_one_is_one_in_all(found):
    assert found[0]["refused"] == found[1]["refused"]
    assert found[0]["refused"][0] == "UserError"
    assert "(6, 8)" in found[0]["refused"][1]


def test_what_the_first_does_for_all(found):
    assert [both["from main"] for both in found] == ["said by 0"] * 2
    assert found[0]["main"] == ["OSError", "no space"]
    assert found[1]["main"] == ["RemoteError", "process 0: OSError: no space"]
    assert [both["gathered"] for both in found] == [[0, 10]] * 2
    assert [both["blocks"] for both in found] == [[0, 2, 4], [1, 3]]
    assert [both["sum"] for both in found] == [[3, 3, 3]] * 2


def test_who_is_killed_is_named(processes, tmp_path):
    one = alone("ends", tmp_path)
    assert one["raised"] == ["RemoteError", "process 1: ValueError: between two exchanges"]
    assert one["killed"].startswith("process 1 of 2 has ended")
    assert "\n" not in one["killed"]
    assert one["seconds"] < 10


def test_who_hangs_is_named_after_the_limit(processes, tmp_path):
    one = alone("hangs", tmp_path)
    assert one["hung"][0] == "UserError"
    assert one["hung"][1].startswith("process 1 of 2 did not answer for 2 s")
    assert 1.5 < one["seconds"] < 10


def test_one_process_by_itself(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as group:
        assert (group.rank, group.size, group.is_main) == (0, 1, True)
        assert group.gather(3) == [3]
        assert group.agree(0.5) == 0.5
        assert group.from_main(lambda: 7) == 7
        assert group.share(range(3)) == [0, 1, 2]
        assert group.add(torch.ones(2)).tolist() == [1, 1]
        group.barrier()
    assert not torch.distributed.is_initialized()
    with (
        pytest.raises(KeyError, match="a"),
        processes() as group,
        group.together(),
        group.in_step(),
    ):
        raise KeyError("a")


def test_alone_the_passes_are_those_of_one_process(tiny_model):
    model = tiny_model()
    drawn = Completions.from_tokens([[1, 2, 3], [4, 5]], [[[6], [7, 8]], [[9], [3, 2]]])
    rewards = [[1, 0], [0, 1]]
    one = CompletionPasses(model, drawn, rewards, token_budget=4)
    ours = DistributedPasses(model, drawn, rewards, token_budget=4, group=Processes())
    c = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    assert torch.equal(ours.gradient(c), one.gradient(c))
    assert torch.equal(ours.logprobs(), one.logprobs())
    v = one.gradient(c)
    for method in ("forward", "central"):
        assert torch.equal(ours.directional(v, method), one.directional(v, method))


def test_an_environment_that_is_not_whole(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        UserError, match=r"WORLD_SIZE is 2 and RANK is not set: start with torchrun"
    ):
        processes().__enter__()


def test_balanced_parts():
    assert balanced([5, 1, 4, 2, 3], 2) == [[0, 1, 3], [2, 4]]
    assert balanced([], 3) == [[], [], []]
    assert balanced([7], 3) == [[0], [], []]
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 100, (40,), generator=generator).tolist()
    parts = balanced(sizes, 3)
    assert sorted(place for part in parts for place in part) == list(range(40))
    loads = [sum(sizes[i] for i in part) for part in parts]
    assert max(loads) - min(loads) <= min(sizes) * 2


def test_a_program_by_itself_is_told_of_no_others():
    launched = {
        "PATH": "/bin", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": "2", "ROLE_NAME": "default", "MASTER_ADDR": "here",
        "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    made = without_launcher(launched)
    assert {name: made[name] for name in ("PATH", "OMP_NUM_THREADS")} == {
        "PATH": "/bin", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    assert set(made) <= {"PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"}
