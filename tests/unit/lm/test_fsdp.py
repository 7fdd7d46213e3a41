"""A model spread over two processes, against the same model in one."""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.distributed import Processes
from passgrad.lm.fsdp import ShardedVector, shard
from passgrad.lm.passes import LIMIT

EXACT = {"float64": 1e-6, "gpt2": 1e-6, "float32": 1e-3}


@pytest.fixture(scope="module")
def found(several):
    """What each process found."""
    return several.read("spread")


@pytest.mark.parametrize("name", EXACT)
def test_the_same_numbers_as_one_process(found, name):
    for one in (both[name] for both in found):
        for part in ("logprobs", "some", "gradient", "one", "inner"):
            assert abs(one[part]) < (1e-6 if name == "float32" else 1e-12), part


@pytest.mark.parametrize("name", EXACT)
def test_differences_along_shares_are_the_derivative(found, name):
    for one in (both[name] for both in found):
        for part in ("central", "where", "estimate"):
            assert one[part] < EXACT[name], part
        # What the passes accept: in float32 two steps need not agree any closer.
        assert one["error"] < (LIMIT if name == "float32" else 1e-3)
        assert one["restored"]


@pytest.mark.parametrize("name", [*EXACT, "bfloat16"])
def test_forward_mode_with_gathered_vectors(found, name):
    for one in (both[name] for both in found):
        assert one["forward"] < {"float32": 1e-6, "bfloat16": 1e-2}.get(name, 1e-12)
        assert one["lengths"] < {"float32": 1e-6, "bfloat16": 1e-3}.get(name, 1e-12)


def test_half_of_the_bits(found):
    for one in (both["bfloat16"] for both in found):
        assert one["logprobs"] == one["some"] == 0
        # Of a row the gradients are in bfloat16, and the sum over two processes is rounded again.
        assert one["gradient"] < 4e-3
        assert one["central"] == one["forward"]  # what is taken without a method
        assert one["kinds"] == ["torch.float32"]


@pytest.mark.parametrize("name", EXACT)
def test_no_process_holds_more_than_its_share(found, name):
    for part in ("held", "vector"):
        shares = [both[name][part] for both in found]
        assert sum(shares) == pytest.approx(1)
        assert max(shares) < 0.52
    kind = "torch.float32" if name == "float32" else "torch.float64"
    assert [both[name]["kinds"] for both in found] == [[kind]] * 2


def test_a_model_read_a_share_at_a_time(found):
    for both in found:
        assert both["loaded"] < 1e-6
        assert both["loaded held"] < 0.52


def test_what_a_sharded_model_cannot_do(found):
    for both in found:
        assert both["flat"][0] == "UserError"
        assert "takes sharded vectors" in both["flat"][1]


def test_a_failure_in_the_midst_of_a_pass_ends_all(several, found):
    first, second = found
    assert second["failed"] == ["ValueError", "no such layer"]
    assert first["failed"] == ["RemoteError", "process 1: ValueError: no such layer"]
    # The script goes on to its end, where each finds that it has left the others.
    assert several.returncode != 0


def test_refusals(tiny_model):
    with pytest.raises(UserError, match="start several with torchrun"):
        shard(tiny_model(), Processes())
    one = ShardedVector({"a": torch.ones(2)}, Processes())
    assert one.inner(one) == 2
    with pytest.raises(UserError, match="different parameters"):
        one.inner(ShardedVector({"b": torch.ones(2)}, Processes()))
