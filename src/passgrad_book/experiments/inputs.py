"""What experiments read beside their parameters."""

from __future__ import annotations

import importlib.metadata

from passgrad.tasks.verifiers import VERSION


def verifier_input() -> dict[str, str | None]:
    """What judges free text, with its version."""
    installed = importlib.metadata.version("math-verify")
    return {"verifier": f"passgrad {VERSION}, math-verify {installed}"}
