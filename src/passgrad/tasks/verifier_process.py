"""The process that a :class:`passgrad.tasks.verifiers.Verifier` keeps, and the two pipes to it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.tasks.judges import About

_WORKER = Path(__file__).with_name("verifier_worker.py")
# Loading a judge may import a large library from a cold disk.
_START_SECONDS = 120

#: how a verifier may be named
FORMS = "exact, math, gsm8k, gym:NAME, package.module:function and path/to/file.py:function"

#: a completion, its reference, and what a judge may ask for beside them
Pair = tuple[str, Any, About]


@dataclass(frozen=True)
class Verdict:
    """``reward`` in {0, 1}; ``reason`` says why there was no ordinary verdict, and is else
    empty.
    """

    reward: float
    reason: str = ""


class Worker:
    """One process, and the two pipes to it. It is thrown away when it is no longer ``sound``."""

    def __init__(self, spec: str, seconds: float, memory_mib: int) -> None:
        self.seconds, self.memory = seconds, memory_mib
        self.sound = True
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.requests = Connection(ours_out, readable=False)
        self.verdicts = Connection(ours_in, writable=False)
        try:
            process = subprocess.Popen(
                # -P: the worker's own folder has modules whose names are common.
                [sys.executable, "-P", str(_WORKER), str(theirs_in), str(theirs_out)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs_in, theirs_out),
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # what the judge starts is killed with it
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.stop = weakref.finalize(self, _stop, process, self.requests, self.verdicts)
        try:
            # The name is imported as the caller would import it.
            path = [entry or os.getcwd() for entry in sys.path]
            if os.getcwd() not in path:
                path.append(os.getcwd())
            self.requests.send((path, spec, seconds, memory_mib))
            problem = self.verdicts.recv() if self.verdicts.poll(_START_SECONDS) else _LATE
        except (EOFError, OSError):
            problem = ("the process", "ended while it was loaded")
        if problem is not None:
            self.stop()
            raise UserError(
                f"the verifier {spec!r} cannot be loaded: {': '.join(problem)}; "
                f"the forms are {FORMS}"
            )

    def judge(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """Verdicts of the first pairs, up to and including one that this process did not
        survive.
        """
        results: list[Verdict] = []
        try:
            self.requests.send(pairs)
            while len(results) < len(pairs):
                began = time.monotonic()
                if not self.verdicts.poll(self.seconds):
                    self.sound = False
                    taken = time.monotonic() - began
                    results.append(
                        Verdict(0.0, f"no verdict in {taken:.1f} seconds; the verifier was killed")
                    )
                    break
                results.append(Verdict(*self.verdicts.recv()))
                if "MemoryError" in results[-1].reason:
                    self.sound = False  # what it still holds would be taken from the next
                    break
        except (EOFError, OSError):
            self.sound = False
            results.append(
                Verdict(
                    0.0,
                    f"the verifier's process died (memory limit {self.memory} MiB, or a crash)",
                )
            )
        return results


_LATE = ("no answer", f"loading took more than {_START_SECONDS} seconds")


def _stop(process: subprocess.Popen[bytes], *pipes: Connection) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # The group is the process's own since start_new_session, and not yet reaped.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in pipes:
        pipe.close()
