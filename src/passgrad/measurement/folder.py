"""The folder of a measurement, finished or not.

``settings.json`` says what was asked for, ``rollouts/`` holds completions (a part for some
prompts), ``passes/`` numbers that took long, and at the end there are ``curve.parquet``,
``prompts.parquet``, ``rollouts.parquet`` and ``measurement.json``, which comes last. Every file
gets its name when it is whole, so that a run that was killed is continued from what is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passgrad.errors import UserError
from passgrad.files import write_atomic

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Folder:
    """Where the files of a measurement are."""

    path: Path

    @property
    def rollouts(self) -> Path:
        """The completions, a parquet file for some prompts each."""
        return self.path / "rollouts"

    @property
    def passes(self) -> Path:
        """The numbers of :class:`passgrad.measurement.kept.Kept`."""
        return self.path / "passes"

    def claim(self, asked: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder one of the measurement with these settings, or find that it is.

        :raises UserError: If it holds a measurement and ``resume`` is not set, one with other
            settings, or something else.
        """
        path = self.path / "settings.json"
        if path.is_file():
            if not resume:
                raise UserError(
                    f"{self.path} holds a measurement already: set resume to go on with it, "
                    "or name another folder"
                )
            before = _json(path)
            other = [name for name in asked if before.get(name) != asked[name]]
            if other:
                raise UserError(
                    f"{self.path} was begun with another {', '.join(other)}: "
                    "give the same, or name another folder"
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} is not empty and holds no measurement: name another folder"
            )
        else:
            write_atomic(path, json.dumps(asked, indent=2, ensure_ascii=False).encode())

    def write_table(self, name: str, table: DataFrame) -> None:
        """``name``.parquet."""
        write_atomic(self.path / f"{name}.parquet", table.to_parquet(index=False))

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write ``measurement.json``, which says that the measurement is done."""
        content = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(self.path / "measurement.json", content.encode())


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): name another folder") from None
