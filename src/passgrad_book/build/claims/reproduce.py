"""The commands of the claims, run again: results go to ``_build``, and what is done is kept.

One run serves every claim that names it. A run whose notebook, tests, code, parameters and lock
file are the same as when it last succeeded is not repeated.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.progress import Progress, Silent, Within
from passgrad_book.build import paths, results, sources
from passgrad_book.build.claims import measured
from passgrad_book.build.claims.outcome import Outcome, measure
from passgrad_book.build.claims.schema import Claim, load
from passgrad_book.build.experiment import HOMES
from passgrad_book.build.notebooks.modules import python_of, used_by
from passgrad_book.build.notebooks.source import split

#: longest a command may take: so many times what claims.yml says, and at least ten minutes
PATIENCE, SHORTEST = 4.0, 600.0


def folder() -> Path:
    """Where the results and notebooks of the runs go."""
    return paths.build() / "reproduce"


def state_path() -> Path:
    """``_build/claims.json``: commands that were run, and what was measured after them."""
    return paths.build() / "claims.json"


def _state() -> dict[str, Any]:
    try:
        content = json.loads(state_path().read_text(encoding="utf-8"))
        return {"commands": dict(content["commands"]), "claims": dict(content["claims"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"commands": {}, "claims": {}}


def _save(state: Mapping[str, Any]) -> None:
    text = json.dumps(state, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomic(state_path(), (text + "\n").encode())


# --- one command ----------------------------------------------------------------------------------


def arguments(claim: Claim) -> list[str] | None:
    """The command as an argument list of this Python; None where the check alone is the run.

    :raises UserError: For a command that is neither ``passgrad run``, ``passgrad verify`` nor
        ``pytest``.
    """
    words = claim.words
    if words[:2] == ["passgrad", "verify"]:
        return None
    if words[:2] == ["passgrad", "run"] and len(words) > 2:
        out = ["--out", str(folder() / "notebooks")]
        return [sys.executable, "-m", "passgrad.cli", *words[1:], *out]
    if words[0] == "pytest" and len(words) > 1:
        return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words[1:]]
    raise UserError(
        f"claims.yml: {claim.id}: command: {claim.command!r} is neither passgrad run, "
        "passgrad verify nor pytest"
    )


def inputs(claim: Claim) -> list[Path]:
    """The notebook or the test files of a command; UserError for one that is not there."""
    words = claim.words
    if words[0] == "pytest":
        files = [paths.root() / word for word in words[1:] if not word.startswith("-")]
    elif words[:2] == ["passgrad", "run"]:
        name = Path(words[2]).stem
        files = sorted(paths.notebooks().glob(f"{name}.py"))
        files = files or [paths.notebooks() / f"{name}.py"]
    else:
        files = []
    for file in files:
        if not file.is_file():
            raise UserError(f"claims.yml: {claim.id}: command: {paths.relative(file)} is not there")
    return files


def _code(text: str) -> str:
    """The code that a notebook or a test runs, its experiments among it: they run again too."""
    try:
        used = used_by(python_of(split(text)))
    except SyntaxError:  # the run will say it
        return ""
    homes = [f"passgrad_book.{HOMES[name]}" for name in used.experiments]
    return sources.digest([*used.modules, *homes])


def digest(claim: Claim) -> str:
    """Hash of all that the run of a claim depends on."""
    total = hashlib.sha256(claim.command.encode())
    for file in inputs(claim):
        text = file.read_text(encoding="utf-8")
        total.update(text.encode())
        total.update(_code(text).encode())
    for file in (paths.lock(), paths.profiles() / "cpu.yml"):
        total.update(file.read_bytes() if file.is_file() else b"-")
    return total.hexdigest()[:16]


def _reading_fresh_results() -> AbstractContextManager[None]:
    return results.environment({results.RESULTS_VARIABLE: str(folder() / "results")})


def run_command(command: list[str], timeout: float) -> str | None:
    """Run a command in the checkout; None when it succeeds, else its last line."""
    with _reading_fresh_results():
        environment = os.environ | {paths.ROOT_VARIABLE: str(paths.root())}
        try:
            done = subprocess.run(
                command, cwd=paths.root(), env=environment, capture_output=True, text=True,
                timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"stopped after {timeout / 60:.0f} minutes"
    if done.returncode == 0:
        return None
    lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
    return f"exit status {done.returncode}: {lines[-1].strip()}"


# --- all of them ----------------------------------------------------------------------------------


def reproduce(
    ids: list[str] | None = None,
    *,
    fresh: bool = False,
    progress: Progress | None = None,
    run: Callable[[list[str], float], str | None] = run_command,
) -> list[Outcome]:
    """Run the commands of the named claims, of all by default, and measure each claim after it.

    :param fresh: Run every command again, also those that are done.
    :param progress: Told of one stage, in commands, with a line before and after each.
    :param run: Runs an argument list within so many seconds; returns what went wrong, or None.
    """
    chosen = [one for one in load().select(ids) if one.verdict != "needs a GPU" or ids]
    commands = {one.command: one for one in chosen}
    for one in commands.values():  # faults of claims.yml come before minutes of work
        arguments(one), inputs(one)
    state = _state()
    progress = progress or Silent()
    progress.stage("commands of the claims", len(commands))
    outcomes: list[Outcome] = []
    for number, (command, first) in enumerate(commands.items(), start=1):
        lead = f"[{number}/{len(commands)}] {command}"
        problem = None
        if first.verdict != "needs a GPU":
            problem = _ensure(first, state, fresh, _Lead(lead, progress), run)
        for claim in chosen:
            if claim.command == command:
                outcomes.append(_after(claim, problem, state))
                _save(state)
        progress.advance()
    order = {one.id: place for place, one in enumerate(chosen)}
    return sorted(outcomes, key=lambda one: order[one.claim.id])


class _Lead(Within):
    """Progress whose lines begin with the command."""

    def __init__(self, lead: str, progress: Progress) -> None:
        super().__init__(progress)
        self.lead = lead

    def note(self, text: str) -> None:
        super().note(f"{self.lead}  {text}")


def _ensure(
    claim: Claim,
    state: dict[str, Any],
    fresh: bool,
    progress: Progress,
    run: Callable[[list[str], float], str | None],
) -> str | None:
    words = arguments(claim)
    if words is None:
        return None
    key = digest(claim)
    known = state["commands"].get(claim.command, {})
    if known.get("digest") == key and not fresh:
        progress.note(f"done before, in {known['seconds']:.0f} s")
        return None
    progress.note(f"about {claim.minutes:g} min")
    start = time.perf_counter()
    problem = run(words, max(SHORTEST, PATIENCE * 60 * claim.minutes))
    seconds = round(time.perf_counter() - start, 1)
    progress.note(
        f"done in {seconds:.0f} s" if problem is None else f"failed in {seconds:.0f} s: {problem}"
    )
    if problem is None:
        state["commands"][claim.command] = {
            "digest": key,
            "seconds": seconds,
            "time": provenance.now(),
            "device": results.device_of(provenance.record()),
        }
    else:
        state["commands"].pop(claim.command, None)
    return problem


def _after(claim: Claim, problem: str | None, state: dict[str, Any]) -> Outcome:
    if problem is not None:
        outcome = Outcome(claim, {}, (f"{claim.id}: {claim.command}: {problem}",), rerun=True)
    else:
        with _reading_fresh_results():
            outcome = measure(claim, rerun=True)
    facts = state["commands"].get(claim.command, {})
    state["claims"][claim.id] = {
        "measured": outcome.measured,
        "verdict": outcome.verdict,
        "check_seconds": round(outcome.seconds, 3),
    } | {name: facts[name] for name in ("seconds", "time", "device") if name in facts}
    return outcome


def store(outcomes: list[Outcome]) -> None:
    """Keep seconds, device and time of these reruns in ``data/claims.json``."""
    try:
        known = measured.read()
    except UserError:
        known = {}
    claims = _state()["claims"]
    for one in outcomes:
        if one.claim.check is not None and not one.failures and one.claim.id in claims:
            entry = known.setdefault(one.claim.id, {})
            entry["rerun"] = {
                name: value
                for name, value in claims[one.claim.id].items()
                if name in ("measured", "seconds", "device", "time")
            }
    measured.write(known)
