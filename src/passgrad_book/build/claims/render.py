"""``book/claims.md`` and ``ARTIFACT.md``, made from ``claims.yml`` and ``data/claims.json``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from passgrad.files import write_atomic
from passgrad_book.build import paths
from passgrad_book.build.claims import measured
from passgrad_book.build.claims.outcome import compare, number
from passgrad_book.build.claims.schema import Claim, Claims, Context, Expectation, Quoted

_NOTE = "Generated from claims.yml and data/claims.json by passgrad verify --write: edit those."
_ORDER = ("reproduced", "corrected", "extended", "not reproduced", "needs a GPU")
_MEANING = {
    "reproduced": "holds as claimed, up to the printed digits",
    "corrected": "holds after a change that the entry names",
    "extended": "not in the paper",
    "not reproduced": "measured, and otherwise",
    "needs a GPU": "quoted; not run here",
}


def write(claims: Claims) -> None:
    """Write both files."""
    for name, text in pages(claims).items():
        write_atomic(paths.root() / name, text.encode())


def outdated(claims: Claims) -> list[str]:
    """The files that are not as they would be written now."""
    return [name for name, text in pages(claims).items() if _read(paths.root() / name) != text]


def pages(claims: Claims | None) -> dict[str, str]:
    """File -> text; without claims only the names, and no text."""
    if claims is None:
        return dict.fromkeys(("book/claims.md", "ARTIFACT.md"), "")
    known = measured.read()
    return {"book/claims.md": book_page(claims, known), "ARTIFACT.md": artifact(claims, known)}


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


# --- parts of both --------------------------------------------------------------------------------


def _cell(text: str) -> str:
    """Text for one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("$", "\\$")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(_cell(one) for one in row) + " |" for row in rows]
    return "\n".join(lines)


def _value(claim: Claim, one: Expectation, known: dict[str, Any]) -> str:
    values = known.get(claim.id, {}).get("measured", {})
    return number(values[one.quantity]) if one.quantity in values else "–"


def _verdict(claim: Claim, known: dict[str, Any]) -> str:
    """The claim's own verdict, unless what was measured contradicts it."""
    values = known.get(claim.id, {}).get("measured")
    return "not reproduced" if values and any(compare(claim, values)) else claim.verdict


def _commands(claims: Claims) -> dict[str, list[Claim]]:
    """Command -> the claims that it serves, in the order of the file."""
    found: dict[str, list[Claim]] = {}
    for one in claims.claims:
        found.setdefault(one.command, []).append(one)
    return found


def _ids(claims: list[Claim]) -> str:
    """Such as "C1 to C4, C16"."""
    parts: list[list[Claim]] = []
    for one in claims:
        last = parts[-1][-1] if parts else None
        follows = last and last.id[0] == one.id[0] and int(one.id[1:]) == int(last.id[1:]) + 1
        if follows:
            parts[-1].append(one)
        else:
            parts.append([one])
    return ", ".join(
        part[0].id
        if len(part) == 1
        else f"{part[0].id}{' to ' if len(part) > 2 else ', '}{part[-1].id}"
        for part in parts
    )


def total_minutes(claims: Claims) -> float:
    """Of all commands that run here, each once."""
    return sum(
        max(one.minutes for one in served)
        for served in _commands(claims).values()
        if served[0].verdict != "needs a GPU"
    )


def _lasted(entry: dict[str, Any]) -> str:
    rerun = entry.get("rerun")
    if not rerun or "seconds" not in rerun:
        return ""
    return f"{rerun['seconds']:.0f} s on {rerun['device']}, {rerun['time'][:10]}"


# --- the page of the book -------------------------------------------------------------------------


def book_page(claims: Claims, known: dict[str, Any]) -> str:
    """The page: verdicts at a glance, every claim with its numbers, and the tables of others."""
    counts = Counter(_verdict(one, known) for one in claims.claims)
    summary = [
        (verdict, str(counts[verdict]), _MEANING[verdict]) for verdict in _ORDER if counts[verdict]
    ]
    blocks = [
        f"% {_NOTE}",
        "(sec-claims)=\n# Claims",
        "Every claim of {cite:t}`barakat2026passk` (C) and of this book (E) with the number that "
        "is expected, the reason for its tolerance, and the number that was measured.\n"
        "`make verify` measures all of them from what ships, without a network or a GPU. "
        "`make reproduce` first runs their commands again, "
        f"{_minutes(total_minutes(claims))} in all on two cores; `make reproduce CLAIM=C3` one of "
        "them.\n"
        "The file behind this page is `claims.yml`.",
        _table(("verdict", "claims", "meaning"), summary),
    ]
    for title, letter in (("Of the paper", "C"), ("Of this book", "E")):
        part = [one for one in claims.claims if one.id.startswith(letter)]
        if part:
            links = [
                (f"{{ref}}`{one.id} <claim-{one.id.lower()}>`", _verdict(one, known), one.statement)
                for one in part
            ]
            blocks += [f"## {title}", _table(("", "verdict", "claim"), links)]
            blocks += [_entry(one, known) for one in part]
    if claims.context:
        blocks += [
            "## What others report",
            "Quoted as context; nothing here is claimed or measured by this book.",
            *(_context(one) for one in claims.context),
        ]
    return "\n\n".join(blocks) + "\n"


def _minutes(value: float) -> str:
    whole = math.ceil(value)
    return f"{whole} minute{'s' if whole != 1 else ''}"


def _entry(claim: Claim, known: dict[str, Any]) -> str:
    lines = [
        f"(claim-{claim.id.lower()})=\n### {claim.id}: {_verdict(claim, known)}",
        claim.statement,
    ]
    lines.append(f"*{_upper(claim.source)}. {_derived(claim)}*")
    if claim.expected:
        rows = [
            (f"`{one.quantity}`", one.text(), _value(claim, one, known), one.why)
            for one in claim.expected
        ]
        lines.append(_table(("quantity", "expected", "measured", "why"), rows))
    if claim.quoted:
        lines.append(_quoted(claim.quoted))
    how = f"`{claim.command}`: {_duration(claim.minutes)}, {claim.hardware}."
    lasted = _lasted(known.get(claim.id, {}))
    how += f" Last run: {lasted}." if lasted else ""
    lines.append(how)
    if claim.reduced:
        lines.append(f"The command is smaller than the stored run: {claim.reduced}.")
    if claim.note:
        lines.append(claim.note)
    return "\n\n".join(lines)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes / 60:.0f} h" if minutes >= 120 else f"{minutes:g} min"


def _derived(claim: Claim) -> str:
    chapter = claim.derived.chapter
    target = chapter.removeprefix("book/") if chapter.startswith("book/") else f"../{chapter}"
    statement = claim.derived.statement
    shown = f", {{prf:ref}}`{statement}`" if statement else ""
    return f"Here: {{doc}}`{target}`{shown}."


def _quoted(quoted: tuple[Quoted, ...]) -> str:
    rows = [(one.quantity, f"{one.value:g}", one.source) for one in quoted]
    return _table(("quoted", "value", "printed in"), rows)


def _context(one: Context) -> str:
    rows = [(row.name, *(f"{value:g}" for value in row.values)) for row in one.rows]
    blocks = [f"### {one.title}", f"{one.source}.", _table(("", *one.columns), rows)]
    return "\n\n".join([*blocks, one.note] if one.note else blocks)


# --- ARTIFACT.md ----------------------------------------------------------------------------------


def artifact(claims: Claims, known: dict[str, Any]) -> str:
    """The appendix that reviewers of artifacts expect: what, needs, time, steps, output."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = Path(__file__).with_name("artifact.md.jinja").read_text(encoding="utf-8")
    gpu = [one for one in claims.claims if one.verdict == "needs a GPU"]
    return environment.from_string(template).render(
        note=_NOTE,
        claims=claims,
        minutes=_minutes(total_minutes(claims)),
        overview=_overview(claims, known),
        commands=_command_table(claims, known),
        reduced=_reduced(claims),
        gpu=_ids(gpu),
    )


def _overview(claims: Claims, known: dict[str, Any]) -> str:
    rows = []
    for one in claims.claims:
        first = one.expected[0] if one.expected else None
        expected = f"{first.quantity}: {first.text()}" if first else "quoted"
        value = _value(one, first, known) if first else "–"
        rows.append((one.id, one.statement, one.source, _verdict(one, known), expected, value))
    return _table(("", "claim", "source", "verdict", "first number expected", "measured"), rows)


def _command_table(claims: Claims, known: dict[str, Any]) -> str:
    rows = []
    for command, served in _commands(claims).items():
        one = served[0]
        last = _lasted(known.get(one.id, {})) or "–"
        rows.append((f"`{command}`", _ids(served), _duration(one.minutes), one.hardware, last))
    return _table(("command", "claims", "at most", "hardware", "last run"), rows)


def _reduced(claims: Claims) -> list[str]:
    grouped: dict[str, list[Claim]] = {}
    for one in claims.claims:
        if one.reduced:
            grouped.setdefault(one.reduced, []).append(one)
    return [f"{_ids(ones)}: {text}." for text, ones in grouped.items()]
