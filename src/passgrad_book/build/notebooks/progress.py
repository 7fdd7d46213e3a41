"""Which cell of a notebook runs, and for how long."""

from __future__ import annotations

import threading
import time
from typing import Any


class CellProgress:
    """Says which cell of how many runs and for how long: a bar in a terminal, lines elsewhere."""

    HEARTBEAT = 30.0

    def __init__(self, name: str, total: int, enabled: bool) -> None:
        from rich.console import Console

        self.name, self.total, self.enabled = name, total, enabled
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.start = time.perf_counter()
        self.cell, self.what = 0, "starting"
        self.stop = threading.Event()
        self.bar: Any = None
        self.thread: threading.Thread | None = None

    def __enter__(self) -> CellProgress:
        if not self.enabled:
            return self
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("cell {task.completed} of {task.total}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[what]}", markup=False),
                console=self.console,
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=self.total, what=self.what)
        else:
            self.thread = threading.Thread(target=self._beat, daemon=True)
            self.thread.start()
        return self

    def _beat(self) -> None:
        while not self.stop.wait(self.HEARTBEAT):
            self._line()

    def _line(self) -> None:
        # Plain text: a log is read long after the terminal is gone.
        self.console.print(
            f"  {self.name}  cell {self.cell} of {self.total}  {self.elapsed}  {self.what}",
            markup=False,
        )

    @property
    def elapsed(self) -> str:
        seconds = int(time.perf_counter() - self.start)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def step(self, cell: int, source: str) -> None:
        lines = [line.strip() for line in source.splitlines()]
        first = next((line for line in lines if line and not line.startswith("#")), "")
        self.cell, self.what = cell, first[:60]
        if not self.enabled:
            return
        if self.bar is not None:
            self.bar.update(self.task, completed=cell, what=self.what)
        else:
            self._line()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        if self.bar is not None:
            self.bar.stop()
        if self.thread is not None:
            self.thread.join(timeout=1)

    def close(self, outcome: str) -> None:
        if self.enabled:
            self.console.print(f"  {self.name}  {outcome} in {self.elapsed}", markup=False)
