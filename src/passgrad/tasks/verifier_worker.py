"""The process that judges completions for :mod:`passgrad.tasks.verifiers`; it may be killed at any
moment.

It is started by its path, so that it loads nothing but what its judge needs. A judge is a function
r(completion, reference) in {0, 1}. What a judge prints is thrown away.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Judge = Callable[[str, Any], Any]

#: Beyond the limit the parent kills the worker. Where the parent itself was killed, the worker
#: ends by itself so many seconds later.
ORPHAN_SECONDS = 5


def load(spec: str) -> Judge:
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
        value = getattr(value, part)
    if not callable(value):
        raise TypeError(f"{name} is {type(value).__name__}, not a function")
    return value


def verdict(judge: Judge, completion: str, reference: Any) -> tuple[float, str]:
    """(reward, reason): the reason is empty when the judge gave 0 or 1, and otherwise says what it
    did.
    """
    try:
        value = judge(completion, reference)
        # Inside the try: what came back may raise when it is compared.
        if isinstance(value, (bool, int, float)) or type(value).__module__ == "numpy":
            if value == 1:
                return 1.0, ""
            if value == 0:
                return 0.0, ""
        return 0.0, f"the verifier returned {repr(value)[:60]}, which is neither 0 nor 1"
    except BaseException as error:  # SystemExit and MemoryError too: nothing stops the others
        return 0.0, f"the verifier raised {type(error).__name__}"


def _math() -> Judge:
    from math_verify import parse
    from math_verify import verify as equal

    # The time is kept by the parent, which kills; an alarm inside would only hide the incident.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    references: dict[str, Any] = {}
    equal(
        parse("$1$", parsing_timeout=None), parse("1", parsing_timeout=None), timeout_seconds=None
    )

    def judge(completion: str, answer: str) -> bool:
        if answer not in references:
            marked = any(mark in answer for mark in ("$", "\\boxed", "\\(", "\\["))
            text = answer if marked else f"${answer}$"
            gold = parse(text, parsing_timeout=None) or parse(answer, parsing_timeout=None)
            if not gold:
                raise ValueError("the reference answer is no mathematical expression")
            references[answer] = gold
        drawn = parse(completion, parsing_timeout=None, raise_on_error=True)
        return bool(equal(references[answer], drawn, timeout_seconds=None))

    return judge


def _gsm8k() -> Judge:
    from passgrad.tasks.base import Prompt
    from passgrad.tasks.gsm8k import verify

    # What is imported at the first use is imported here, outside the limit of a verdict.
    verify("#### 1", Prompt("", "", "1"))
    return lambda completion, answer: verify(completion, Prompt("", "", answer))


def _gym(name: str) -> Judge:
    import reasoning_gym
    from reasoning_gym.utils import extract_answer

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

    return judge


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
        for completion, reference in batch:
            _limit_time(seconds)
            result = verdict(judge, completion, reference)
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
