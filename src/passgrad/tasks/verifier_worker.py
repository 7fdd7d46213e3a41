"""The process that judges completions for :mod:`passgrad.tasks.verifiers`; it may be killed at any
moment.

It is started by its path, so that it loads nothing but what its judge needs; the modules of the
package are imported when its path is known.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: Beyond the limit the parent kills the worker. Where the parent itself was killed, the worker
#: ends by itself so many seconds later.
ORPHAN_SECONDS = 5


def load(spec: str) -> Any:
    """The judge that a specification names: ``math``, ``gsm8k``, ``gym:NAME``,
    ``package.module:function`` or ``path/to/file.py:function``.

    :raises Exception: Whatever the import raises.
    """
    if spec == "math":
        return _math()
    if spec == "gsm8k":
        return _gsm8k()
    home, _, name = spec.rpartition(":")
    if home == "gym":
        return _gym(name)
    if home.endswith(".py"):
        path = Path(home).resolve()
        sys.path.insert(0, str(path.parent))
        found = importlib.util.spec_from_file_location(path.stem, path)
        if found is None or found.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(found)
        sys.modules[path.stem] = module
        found.loader.exec_module(module)
    else:
        module = importlib.import_module(home)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            raise AttributeError(_no_function(home, value, part))
        value = getattr(value, part)
    if not callable(value):
        raise TypeError(f"{name} is {type(value).__name__}, not a function")
    from passgrad.tasks.judges import adapted

    return adapted(value)


def _no_function(home: str, value: Any, name: str) -> str:
    here = [key for key, one in vars(value).items() if callable(one) and key[0] != "_"]
    close = difflib.get_close_matches(name, here, n=1)
    return f"{home} has no function {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")


def _math() -> Any:
    from passgrad.tasks.answers.equality import is_right
    from passgrad.tasks.judges import two

    # The time is kept by the parent, which kills; an alarm inside would only hide the incident.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    # What is imported at the first use is imported here, outside the limit of a verdict.
    is_right("$x + 1$", "1 + x")
    return two(is_right)


def _gsm8k() -> Any:
    from passgrad.tasks.base import Prompt
    from passgrad.tasks.gsm8k import verify
    from passgrad.tasks.judges import two

    verify("#### 1", Prompt("", "", "1"))
    return two(lambda completion, answer: verify(completion, Prompt("", "", answer)))


def _gym(name: str) -> Any:
    import reasoning_gym
    from reasoning_gym.utils import extract_answer

    from passgrad.tasks.judges import two

    dataset = reasoning_gym.create_dataset(name, size=1, seed=0)

    def judge(completion: str, reference: Any) -> bool:
        # A prompt that did not come from the data set has an answer and no metadata.
        entry = (
            reference
            if isinstance(reference, Mapping)
            else {"question": "", "answer": reference, "metadata": {}}
        )
        answer = extract_answer(completion)
        # The scores are graded; only the full one is a success.
        given = completion.strip() if answer is None else answer
        return bool(dataset.score_answer(given, entry) >= 1)

    return two(judge)


def _limit_memory(mebibytes: int) -> None:
    """At most so much beyond what loading the judge took."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no such file outside Linux
        used = 0
    with contextlib.suppress(ValueError, OSError):  # systems that do not limit address space
        resource.setrlimit(resource.RLIMIT_AS, (used + (mebibytes << 20), resource.RLIM_INFINITY))


def _limit_time(seconds: float) -> None:
    """The kernel ends this process, without asking Python, when its parent no longer can."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + ORPHAN_SECONDS)
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds + 2 * ORPHAN_SECONDS) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


def main(incoming: int, outgoing: int) -> None:
    """Judge batches from one pipe, with a verdict for each pair into the other, until it closes."""
    requests = Connection(incoming, writable=False)
    verdicts = Connection(outgoing, readable=False)
    path, spec, seconds, memory = requests.recv()
    sys.path[:] = path
    try:
        from passgrad.tasks.judges import verdict

        judge = load(spec)
    except BaseException as error:
        text = " ".join(str(error).split())[:200]
        verdicts.send((type(error).__name__, text))
        return
    _limit_memory(memory)
    verdicts.send(None)
    while True:
        try:
            batch = requests.recv()
        except EOFError:
            return
        for completion, reference, about in batch:
            _limit_time(seconds)
            result = verdict(judge, completion, reference, about)
            verdicts.send(result)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(
            resource.RLIMIT_CPU,
            (resource.getrlimit(resource.RLIMIT_CPU)[1],) * 2,
        )


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main(int(sys.argv[1]), int(sys.argv[2]))
    # Threads that a judge left behind do not keep the process.
    os._exit(0)
