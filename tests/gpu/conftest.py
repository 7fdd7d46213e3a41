"""A device, and what the tests of one need."""

import importlib.util
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gpu_device():
    """The first GPU, or the device that PASSGRAD_GPU_DEVICE names; skips where there is neither."""
    import torch

    name = os.environ.get("PASSGRAD_GPU_DEVICE") or "cuda"
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("no GPU is seen here; PASSGRAD_GPU_DEVICE=cpu runs these on the processor")
    return name


@pytest.fixture(scope="session")
def small():
    """The helpers of the unit tests: tiny models and tokenizers."""
    path = Path(__file__).resolve().parents[1] / "unit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("unit_conftest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def place(small, tmp_path_factory):
    """The folder of a tiny model, and a file of prompts beside it."""
    import json

    from passgrad.lm.models import save_model

    folder = tmp_path_factory.mktemp("gpu")
    tokenizer = small.bpe("ab=\n")
    save_model(small.tiny_language_model(tokenizer, dtype="float32"), tokenizer, folder / "model")
    rows = [{"prompt": q, "answer": a} for q, a in zip(small.QUESTIONS, small.ANSWERS, strict=True)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
