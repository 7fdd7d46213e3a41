"""What long work says while it runs."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what is being done and how far it is; ``passgrad measure`` shows it as bars.

    A function that takes a ``progress`` announces its stages itself.
    """

    def stage(self, name: str, total: float) -> None:
        """A part of the work begins, of ``total`` units."""
        ...

    def advance(self, amount: float = 1) -> None:
        """So many units of the stage are done."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class Within:
    """A piece of a stage that somebody else has announced: it advances that stage, and stages of
    its own are not shown.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def stage(self, name: str, total: float) -> None:
        """Nothing."""

    def advance(self, amount: float = 1) -> None:
        """So many units of the stage outside are done."""
        self._progress.advance(amount)

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._progress.note(text)


class Silent:
    """Says nothing."""

    def stage(self, name: str, total: float) -> None:
        """Nothing."""

    def advance(self, amount: float = 1) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
