"""``data/claims.json``: what was measured for each claim. Written by the machine alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad_book.build import paths

SCHEMA = 1


def path() -> Path:
    """The file."""
    return paths.root() / "data" / "claims.json"


def _checksum(claims: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()


def read() -> dict[str, dict[str, Any]]:
    """Claim -> {"measured", "rerun"}; empty when nothing was written yet.

    :raises UserError: For a file that is not as it was written.
    """
    if not path().is_file():
        return {}
    remedy = "restore it with git, or write it again: passgrad verify --write"
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
        claims, checksum = dict(content["claims"]), content["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"data/claims.json cannot be read ({error}); {remedy}") from None
    if checksum != _checksum(claims):
        raise UserError(f"data/claims.json was changed by hand: {remedy}")
    return claims


def write(claims: Mapping[str, Any]) -> None:
    """Replace the file."""
    content = {"schema": SCHEMA, "sha256": _checksum(claims), "claims": claims}
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=True)
    write_atomic(path(), (text + "\n").encode())
