"""No tensor of a pass lies elsewhere than the model.

On the device "meta" tensors have no numbers, and operations of tensors on two devices are refused
as they are on a GPU.
"""

import pytest
import torch

from passgrad.errors import UserError
from passgrad.lm.completions import Completions
from passgrad.lm.distributed import check_device, processes
from passgrad.lm.logprobs import join, packed_logprobs
from passgrad.measurement.forecast.live import Live

DRAWN = Completions.from_tokens([[1, 2, 3, 1], [2, 2, 1]], [[[1, 2], [2, 1, 1]], [[1], [3, 3]]])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "gemma"])
def test_packed_rows_mix_no_devices(tiny_model, architecture):
    model = tiny_model(architecture, dtype="float32").to("meta")
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for packed in (True, False):
        rows = DRAWN.rows(packed=packed)
        for row in join(model, rows, 64) if packed else rows:
            with Live():  # answers where a number is asked for
                values = packed_logprobs(model, row)
                assert values.device.type == "meta"
                values.sum().backward()
    assert all(p.grad.device.type == "meta" for p in model.parameters() if p.grad is not None)


def test_mixing_is_noticed(tiny_model, monkeypatch):
    """Tokens that stay on the processor."""
    model = tiny_model(dtype="float32").to("meta")
    row = DRAWN.rows()[0]
    monkeypatch.setattr(type(model), "device", property(lambda self: torch.device("cpu")))
    with pytest.raises(RuntimeError, match=r"device|meta"):
        packed_logprobs(model, row)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", "computes nothing in float64: give cpu, cuda or cuda:N"),
        ("gpu", "is no device that is known here: give cpu, cuda or cuda:N"),
        ("cuda:x", "is no device"),
    ],
)
def test_devices_that_are_none(name, message):
    with pytest.raises(UserError, match=message):
        check_device(name)


def test_a_gpu_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda", "cuda:1"):
        with (
            pytest.raises(UserError, match="0 GPUs are seen here: give cpu"),
            processes(device=name),
        ):
            pass
    with processes() as group:
        assert group.device == torch.device("cpu")
