"""What is computed on a device is what is computed on the processor."""

import json

import pandas as pd
import pytest
import torch

from passgrad import cli
from passgrad.lm.completions import Completions
from passgrad.lm.curvature import curvatures
from passgrad.lm.models import load_model
from passgrad.lm.passes import CompletionPasses

DRAWN = Completions.from_tokens(
    [[1, 2, 3, 1], [2, 2, 1], [3, 1, 1, 2, 2]],
    [[[1, 2], [2, 1, 1], [1, 2], [3]], [[1], [2], [3, 3], [1, 1, 1]], [[2, 3], [1], [2], [3, 1]]],
)
REWARDS = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0]])
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


def off(found, expected):
    found, expected = (x.double().cpu().nan_to_num() for x in (found, expected))
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def both(request, place, gpu_device):
    """Passes there and here, and the dtype."""
    made = []
    for device in (gpu_device, "cpu"):
        model, _ = load_model(place / "model", dtype=getattr(torch, request.param))
        made.append(CompletionPasses(model.to(device), DRAWN, REWARDS, token_budget=16))
    return (*made, request.param)


def test_passes(both, gpu_device):
    there, here, dtype = both
    limit = TOLERANCE[dtype]
    c = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
    assert off(there.logprobs(), here.logprobs()) < limit
    v, w = there.gradient(c), here.gradient(c)
    assert v.device.type == torch.device(gpu_device).type
    assert v.dtype == torch.float32
    assert off(v, w) < limit
    assert off(there.directional(v, "forward"), here.directional(w, "forward")) < 4 * limit
    if dtype == "float32":
        assert off(there.directional(v, "central"), here.directional(w, "central")) < 1e-2
        slopes = here.directional(w, "forward")
        bends = [curvatures(p, x, slopes).values for p, x in ((there, v), (here, w))]
        assert off(*bends) < 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_command(place, gpu_device, tmp_path, dtype):
    common = [
        "measure", "--model", str(place / "model"), "--ks", "1,2,4", "--reading", "fixed",
        "--dtype", dtype,
    ]  # fmt: skip

    def run(device, *more):
        out = tmp_path / f"{device.replace(':', '-')}-{len(more)}"
        with pytest.raises(SystemExit) as end:
            cli.main([*common, "--device", device, "--out", str(out), *more])
        assert not end.value.code
        record = json.loads((out / "measurement.json").read_text())
        assert torch.device(record["provenance"]["device"]).type == torch.device(device).type
        assert record["settings"]["dtype"] == dtype
        return out

    drawn = run(
        gpu_device, "--prompts", str(place / "prompts.jsonl"), "--stop", "\n", "--samples", "32",
        "--max-new-tokens", "4", "--engine", "transformers", "--no-parts",
    )  # fmt: skip
    again = run("cpu", "--rollouts", str(drawn / "rollouts.parquet"))
    found, expected = (pd.read_parquet(f / "curve.parquet") for f in (drawn, again))
    away = (found["inner_product"] - expected["inner_product"]).abs()
    assert (away < TOLERANCE[dtype] * expected["standard_error"]).all()


def test_a_number_of_a_gpu_that_is_not_there(place, gpu_device, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["measure", "--model", str(place / "model"), "--prompts", "x", "--device", "cuda:77",
             "--out", str(tmp_path / "m")]
        )  # fmt: skip
    assert end.value.code == 1
    line = capsys.readouterr().err.strip()
    assert "GPUs are seen here: give cpu" in line
    assert "\n" not in line
