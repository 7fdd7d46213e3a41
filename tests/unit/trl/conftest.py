"""Tiny models, and the helpers of these tests as a fixture."""

import copy
import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def lab():
    """The module helpers.py. TRL is imported here, which no test is charged for."""
    import passgrad.trl

    assert passgrad.trl.PassKGRPOTrainer
    assert passgrad.trl.PassKRLOOTrainer
    path = Path(__file__).with_name("helpers.py")
    spec = importlib.util.spec_from_file_location("passgrad_trl_helpers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def without_remarks(quiet):
    """In every test here."""


@pytest.fixture
def tiny(tiny_model, tiny_tokenizer):
    """A tiny model in float32 and its tokenizer, fresh."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.padding_side = "left"
    return tiny_model(dtype="float32", seed=3), tokenizer
