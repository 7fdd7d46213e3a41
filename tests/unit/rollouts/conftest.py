"""The random logs of these tests as a fixture."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def log_cases():
    """The module log_cases.py."""
    path = Path(__file__).with_name("log_cases.py")
    spec = importlib.util.spec_from_file_location("passgrad_log_cases", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
