"""Options that would have no effect are refused before anything is read or loaded.

An option counts as given where its value is not the default.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.measurement.options import Options, both
from passgrad.rollouts.logged import Logged
from passgrad.tasks.base import Task
from passgrad.tasks.prompt_files import TASKS

# Of a task, which has its own.
_OF_A_FILE = ("verifier", "verifier_seconds", "verifier_memory", "stop", "max_new_tokens")
# Of completions that are drawn here.
_OF_DRAWING = ("samples", "base_url", "engine")
_LIMITS = ("verifier_seconds", "verifier_memory")


def check_applicable(options: Options, prompts: Any) -> None:
    """Raise a :class:`UserError` for an option that does not go with the others."""
    given = _given(options)
    rollouts = options.drawing.rollouts is not None
    if prompts is None and not rollouts:
        raise UserError(
            "neither prompts nor rollouts are given: name one of them, --prompts (the second "
            "argument) or --rollouts (rollouts=)"
        )
    if isinstance(prompts, Task) or is_task(prompts):
        name = prompts.name if isinstance(prompts, Task) else prompts
        _refuse(given, _OF_A_FILE, f"the task {name} has its own; give a file of prompts for it")
    if rollouts:
        own = "the completions come from the rollouts, which have their own"
        verifying = options.step is not None and options.step.verify_step
        _refuse(given, _OF_DRAWING[:1] if verifying else _OF_DRAWING, own)
    else:
        named = [part.name for part in fields(Logged)]
        _refuse(given, named, "it is of completions drawn elsewhere, and no rollouts are given")
    if options.judging.verifier == "exact":
        _refuse(given, _LIMITS, "the verifier exact runs in no process; name another one for it")
    if not options.estimating.parts:
        _refuse(given, ("adam",), "Adam's metric is that of the parts, and those are left out")


def is_task(prompts: Any) -> bool:
    """Whether this is the name of a task."""
    named = isinstance(prompts, str) and (prompts in TASKS or prompts.startswith("gym:"))
    return named and not Path(prompts).is_file()


def meant(prompts: str | Path) -> str:
    """A hint at the file or task that a name which is neither may have meant; else empty."""
    path = Path(prompts)
    try:
        there = [
            entry.name
            for entry in path.parent.iterdir()
            if entry.suffix in (".jsonl", ".json", ".parquet", ".gz", path.suffix)
        ]
    except OSError:
        there = []
    names = {name: str(path.parent / name) for name in there} | {name: name for name in TASKS}
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f": did you mean {names[close[0]]!r}?" if close else ""


def _given(options: Options) -> list[str]:
    groups = (
        options.drawing, options.judging, options.estimating, options.running, options.logged,
    )  # fmt: skip
    return [
        part.name
        for group in groups
        for part in fields(group)
        if part.name != "progress" and getattr(group, part.name) not in (part.default, [])
    ]


def _refuse(given: list[str], names: Sequence[str], reason: str) -> None:
    for name in names:
        if name in given:
            raise UserError(f"{both(name)} does not apply: {reason}")
