r"""Verifiers that answer in bounded time whatever they are given: r(y, x) in {0, 1}.

A completion is text from a model and may be anything: ``9**9**9**9``, a megabyte of digits, ten
thousand open brackets. So the judge runs in a process of its own with limited memory, and that
process is killed when a verdict takes longer than the limit. The clock is the caller's, so the
limit holds in any thread and against code that never returns to Python. A completion whose judge
was killed, raised, or returned no verdict counts as wrong and is reported as an :class:`Incident`,
with the judge's own message.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from passgrad.errors import UserError
from passgrad.tasks.base import Prompt
from passgrad.tasks.judges import About
from passgrad.tasks.verifier_process import FORMS, Pair, Verdict, Worker

# Pairs sent at once: enough that no verdict waits for the pipe.
_BATCH = 256
_SHOWN = 80
_WHOLE = re.compile(r"-?\d+\.0")

#: raised when a verdict of a built-in verifier, or of the task gsm8k or math, changes
VERSION = 1

BUILT_IN = ("exact", "math", "gsm8k")


# What a reference is written as to be right by itself, for the verifiers that read it.
_SELF = {"math": ("ANSWER", "\\boxed{ANSWER}"), "gsm8k": ("#### ANSWER",)}
# What a function raises that lacks something, whatever it is given.
_NEVER = tuple(
    f"the verifier raised {name}"
    for name in ("NameError", "ImportError", "ModuleNotFoundError", "NotImplementedError")
)


@dataclass(frozen=True)
class Incident:
    """A distinct (completion, reference) pair without an ordinary verdict; it counts as wrong.

    ``places``: where it stands in the batch. ``completion``, ``answer``: their beginnings.
    ``prompt_id``: of a call about a prompt.
    """

    places: tuple[int, ...]
    completion: str
    answer: str
    reason: str
    prompt_id: str = ""

    def __str__(self) -> str:
        return f"{self.reason} (completion {self.completion!r}, answer {self.answer!r})"


class Verifier:
    """A judge by name, safe against what it judges.

    ``exact``: equal after white space at both ends is removed (so unlike
    :func:`passgrad.tasks.base.exact_match`, which compares every character), or equal numbers
    where the answer is a whole number written as a decimal, as 42.0. ``math``: the answer in the
    last box, or else the last expression (:mod:`passgrad.tasks.answers.text`), equals the reference
    as a person would say (:mod:`passgrad.tasks.answers.equality`). ``gsm8k``: the number behind
    ``####``. ``gym:NAME``: the score of the reasoning-gym data set NAME is 1; the
    answer is what stands between the last ``<answer>`` tags, or else the whole completion.
    ``package.module:function`` and ``path/to/file.py:function``: a function of (completion,
    answer) that returns a bool, 0 or 1, or one with the parameters of verl's or TRL's
    (:mod:`passgrad.tasks.judges`).

    One process is kept and judges one completion after another; it starts at the first use and
    ends with the object, or by :meth:`close`. Threads may share a verifier; they take turns.

    :param spec: The name, or a function defined at the top of a module.
    :param seconds: Limit of one verdict.
    :param memory_mib: Limit of the process's memory beyond what loading the judge took.
    :param entries: What the judge gets in place of ``Prompt.answer``, by prompt id; the entries of
        a reasoning-gym data set.
    :raises UserError: For a name of no known form, an unknown reasoning-gym data set, a file that
        does not exist, a limit that is not positive. A function that cannot be imported is
        reported at the first use, or by :meth:`start`.
    """

    def __init__(
        self,
        spec: str | Callable[[str, str], Any],
        *,
        seconds: float = 5.0,
        memory_mib: int = 1024,
        entries: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 < seconds < float("inf"):
            raise UserError(f"the verifier's limit is {seconds} seconds; give a positive number")
        if memory_mib < 1:
            raise UserError(f"the verifier's memory is {memory_mib} MiB; give at least 1")
        self.spec = _checked(spec if isinstance(spec, str) else _named(spec))
        self.seconds = float(seconds)
        self.memory_mib = memory_mib
        self.entries = dict(entries or {})
        #: of the calls as ``Task.verify``, which return no more than a bool
        self.incidents: list[Incident] = []
        self._lock = threading.RLock()
        self._worker: Worker | None = None

    def __call__(self, completion: str, prompt: Prompt) -> bool:
        """Whether one completion of a prompt is a success: ``Task.verify``."""
        rewards, incidents = self.judge([completion], [prompt])
        self.incidents += [replace(one, prompt_id=prompt.id) for one in incidents]
        return bool(rewards[0] == 1)

    def reference(self, prompt: Prompt) -> Any:
        """What the judge compares a completion of this prompt with."""
        return self.entries.get(prompt.id, prompt.answer)

    def verdict(self, completion: str, reference: Any) -> Verdict:
        """The verdict of one completion."""
        return self._verdicts([(completion, reference, About())])[0]

    def judge(
        self, completions: Sequence[str], prompts: Sequence[Prompt]
    ) -> tuple[NDArray[np.float64], list[Incident]]:
        """:meth:`verify_all` for completions of these prompts, one prompt a completion."""
        about = [About(prompt.text, prompt.group) for prompt in prompts] if self._asks else None
        return self.verify_all(completions, [self.reference(one) for one in prompts], about)

    def verify_all(
        self,
        completions: Sequence[str],
        answers: Sequence[Any],
        about: Sequence[About] | None = None,
    ) -> tuple[NDArray[np.float64], list[Incident]]:
        """(rewards, incidents): (N,) zeros and ones for N completions, each with its reference.

        Identical pairs are judged once. Nothing that a judge does raises here.

        :param about: Prompts and their groups, for functions that ask for them.
        :raises UserError: If the lists differ in length, a completion is no text, or the judge
            cannot be loaded.
        """
        if len(completions) != len(answers):
            raise UserError(
                f"{len(completions)} completions and {len(answers)} answers; "
                "give one answer for each completion"
            )
        wrong = next((i for i, text in enumerate(completions) if not isinstance(text, str)), None)
        if wrong is not None:
            raise UserError(f"completion {wrong} is {completions[wrong]!r}; give text")
        places: dict[tuple[str, Any, About], list[int]] = {}
        pairs: dict[tuple[str, Any, About], Pair] = {}
        beside = [About()] * len(completions) if about is None else about
        for place, pair in enumerate(zip(completions, answers, beside, strict=True)):
            # An entry is not hashable; it is the same as long as it is the same object.
            key = (pair[0], pair[1] if isinstance(pair[1], str) else id(pair[1]), pair[2])
            places.setdefault(key, []).append(place)
            pairs[key] = pair
        verdicts = self._verdicts(list(pairs.values()))
        rewards = np.zeros(len(completions))
        incidents = []
        for (key, where), verdict in zip(places.items(), verdicts, strict=True):
            rewards[where] = verdict.reward
            if verdict.reason:
                completion, answer, _ = pairs[key]
                incidents.append(
                    Incident(
                        tuple(where),
                        completion[:_SHOWN],
                        (answer if isinstance(answer, str) else str(answer.get("answer")))[:_SHOWN],
                        verdict.reason,
                    )
                )
        return rewards, incidents

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Try the references before anything is drawn: each must be right when it is the answer.

        :raises UserError: For a reference that ``math`` or ``gsm8k`` cannot read, in one line that
            names the prompt; for a judge that cannot be loaded, or that lacks something whatever
            it is given.
        """
        self.start()
        if self._asks and prompts:
            first = prompts[0]
            about = About(first.text, first.group)
            reason = self._verdicts([(first.answer, first.answer, about)])[0].reason
            if reason.startswith(_NEVER):
                raise UserError(f"the verifier {self.spec!r} never gives a verdict: {reason}")
        if self.spec not in _SELF:
            return
        answers = list(dict.fromkeys(prompt.answer for prompt in prompts))
        wrong: dict[str, str] = dict.fromkeys(answers, "")
        for written in _SELF[self.spec]:
            left = list(wrong)
            texts = [written.replace("ANSWER", answer.rpartition("####")[2]) for answer in left]
            verdicts = self._verdicts([(t, a, About()) for t, a in zip(texts, left, strict=True)])
            wrong = {
                answer: found.reason
                for answer, found in zip(left, verdicts, strict=True)
                if found.reward != 1
            }
        bad = [prompt for prompt in prompts if prompt.answer in wrong]
        if bad:
            reason = wrong[bad[0].answer].partition(": ")[2] or "it is not equal to itself"
            others = f"; so have {len(bad) - 1} other prompts" if len(bad) > 1 else ""
            raise UserError(
                f"prompt {bad[0].id!r} has the answer {bad[0].answer[:_SHOWN]!r}, which the "
                f"verifier {self.spec} cannot judge ({reason}){others}; correct it, leave the "
                "prompt out, or take another verifier"
            )

    def start(self) -> Verifier:
        """Load the judge now.

        :raises UserError: If it cannot be loaded.
        """
        with self._lock:
            if self.spec != "exact" and self._worker is None:
                self._worker = Worker(self.spec, self.seconds, self.memory_mib)
        return self

    def close(self) -> None:
        """End the process; the next verdict starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.stop()
                self._worker = None

    def __enter__(self) -> Verifier:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _asks(self) -> bool:
        """Whether the judge is a user's function, which may ask for the prompt."""
        return ":" in self.spec and not self.spec.startswith("gym:")

    def _verdicts(self, pairs: Sequence[Pair]) -> list[Verdict]:
        if self.spec == "exact":
            return [Verdict(float(_exactly(given, answer))) for given, answer, _ in pairs]
        results: list[Verdict] = []
        with self._lock:
            while len(results) < len(pairs):
                self.start()
                assert self._worker is not None
                results += self._worker.judge(pairs[len(results) : len(results) + _BATCH])
                if not self._worker.sound:
                    self.close()
        return results


def _exactly(given: str, answer: str) -> bool:
    """The same text, or the same whole number: an integer column with a gap is read as floats."""
    given, answer = given.strip(), answer.strip()
    return given == answer or (_WHOLE.fullmatch(answer) is not None and given == answer[:-2])


def _named(function: Callable[[str, str], Any]) -> str:
    """The name under which another process can import a function.

    :raises UserError: If it has none: a lambda, a local function, or one typed into a prompt.
    """
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "<")
    if "<" in name:
        raise UserError(
            f"the verifier {name} cannot be loaded in another process; "
            "define it at the top of a module"
        )
    if module == "__main__":
        module = getattr(sys.modules["__main__"], "__file__", None) or ""
        if not module.endswith(".py"):
            raise UserError(
                f"the verifier {name} is defined in a session without a file; write it to one and "
                f"name it, as in my_verifier.py:{name}"
            )
    return f"{module}:{name}"


def _checked(spec: str) -> str:
    if spec in BUILT_IN:
        return spec
    home, colon, name = spec.rpartition(":")
    if not colon or not home or not name:
        raise UserError(f"unknown verifier {spec!r}{_nearest(spec)}; the forms are {FORMS}")
    if home == "gym":
        check_gym_name(name)
    elif home.endswith(".py"):
        if not Path(home).is_file():
            there = [entry.name for entry in Path(home).parent.glob("*.py")]
            close = difflib.get_close_matches(Path(home).name, there, n=1)
            hint = f": did you mean {str(Path(home).with_name(close[0]))!r}?" if close else ""
            raise UserError(
                f"{home}: no such file{hint}; the verifier {spec!r} names a function in it"
            )
        spec = f"{Path(home).resolve()}:{name}"
    elif not all(part.isidentifier() for part in [*home.split("."), *name.split(".")]):
        raise UserError(f"unknown verifier {spec!r}; the forms are {FORMS}")
    return spec


def _nearest(spec: str) -> str:
    """A hint at what was meant, or nothing."""
    if spec.endswith(".py"):
        return f": name the function in it, as {spec}:judge"
    close = difflib.get_close_matches(spec, BUILT_IN, n=1)
    return f": did you mean {close[0]!r}?" if close else ""


def check_gym_name(name: str) -> None:
    """Raise a :class:`UserError` unless reasoning-gym is installed and has the data set."""
    try:
        names = importlib.import_module("reasoning_gym.factory").DATASETS
    except ImportError:
        raise UserError(
            "reasoning-gym is not installed; pip install reasoning-gym for tasks gym:NAME"
        ) from None
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3) or sorted(names)[:3]
        raise UserError(
            f"reasoning-gym has no data set {name!r}; it has {len(names)}, "
            f"among them {', '.join(close)}"
        )
