"""What a long measurement says while it runs."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what is being done and how far it is; ``passgrad measure`` shows it as bars."""

    def stage(self, name: str, total: float) -> None:
        """A part of the work begins, of ``total`` units."""
        ...

    def advance(self, amount: float = 1) -> None:
        """So many units of the stage are done."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: float) -> None:
        """Nothing."""

    def advance(self, amount: float = 1) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
