"""The script for a machine with a GPU, with the processor as its device."""

import json
import os
import subprocess
import sys


def script(root, *arguments):
    return subprocess.run(
        [sys.executable, str(root / "scripts" / "gpu.py"), *arguments],
        env=os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip


def test_the_quickest_share_of_its_path(processes, root, tmp_path):
    done = script(
        root, "--device", "cpu", "--small", "--out", str(tmp_path), "--only", "packed_logprobs,vllm"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["device"] == "cpu"
    assert record["gpu"] is None
    assert record["small"] is True
    assert {"commit", "versions", "cpu"} <= record["provenance"].keys()
    assert record["steps"]["vllm"] == {
        "status": "left out", "said": "the device is a processor", "seconds": 0.0,
    }  # fmt: skip
    step = record["steps"]["packed_logprobs"]
    assert step["status"] == "done"
    assert step["figures"]["smoke"] is True


def test_a_step_that_is_none(processes, root, tmp_path):
    done = script(root, "--device", "cpu", "--small", "--out", str(tmp_path), "--only", "tets")
    assert done.returncode != 0
    assert "no step tets; the steps are tests, forecast, measure" in done.stderr
    assert not (tmp_path / "gpu.json").exists()
