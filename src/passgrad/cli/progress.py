"""Bars with the time left, on a terminal; lines where there is none, as in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Seconds between two lines of a log.
_PAUSE = 30.0


class Bars:
    """:class:`passgrad.progress.Progress` on standard error."""

    def __init__(self) -> None:
        console = Console(stderr=True, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            # The speed of the last hour: the first passes of a run are not typical.
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=3600,
        )
        self._live = sys.stderr.isatty()
        self._begun = self._said = time.monotonic()
        self._stage: TaskID | None = None
        self._name, self._total, self._done, self._since = "", 0.0, 0.0, 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._bars.stop()

    def stage(self, name: str, total: float) -> None:
        """A bar of its own, or a line."""
        self._name, self._total, self._done = name, total, 0.0
        self._since = time.monotonic()
        if self._live:
            self._stage = self._bars.add_task(name, total=total)
        else:
            self._line(name)

    def advance(self, amount: float = 1) -> None:
        """Further to the right; a line when the last one is some time ago."""
        self._done += amount
        if self._live and self._stage is not None:
            self._bars.advance(self._stage, amount)
        elif not self._live and self._done < self._total and self._pause():
            self._line(f"{self._name}: {self._done / self._total:.0%}, {self._left()} left")

    def note(self, text: str) -> None:
        """A line above the bars."""
        if self._live:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            self._line(text)

    def _pause(self) -> bool:
        return time.monotonic() - self._said >= _PAUSE

    def _left(self) -> str:
        spent = time.monotonic() - self._since
        return _clock(spent * (self._total - self._done) / self._done)

    def _line(self, text: str) -> None:
        self._said = time.monotonic()
        typer.echo(f"[{_clock(self._said - self._begun)}] {text}", err=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
