"""The tiny models and trainers of the tests of passgrad.trl."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).parents[2] / "trl" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("passgrad_trl_fixtures", _PATH)
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)
lab, tiny, without_remarks = _FIXTURES.lab, _FIXTURES.tiny, _FIXTURES.without_remarks
