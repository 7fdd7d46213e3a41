"""Everything that ships against everything that is said of it: no network, no GPU, minutes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from passgrad.errors import UserError
from passgrad.progress import Progress
from passgrad_book.build import columns, results, witness
from passgrad_book.build.claims import measured, records, render
from passgrad_book.build.claims.outcome import Outcome, measure, number
from passgrad_book.build.claims.schema import Claims, load


@dataclass(frozen=True)
class Part:
    """One row of the closing table that is not a claim."""

    name: str
    detail: str
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What :func:`verify` found."""

    parts: tuple[Part, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> list[str]:
        """One line each; empty when all is in order."""
        found = [line for part in self.parts for line in part.failures]
        return found + [line for one in self.outcomes for line in one.failures]


def verify(
    ids: list[str] | None = None,
    *,
    write: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Check files, records, identities, claims and generated pages; the named claims alone.

    ``write`` writes ``data/claims.json``, what the manifest says of the results, and the pages that
    are made from them, before the pages are compared. ``progress`` is told which witness runs.
    """
    claims = load()
    chosen = claims.select(ids)
    if write:
        results.refresh_manifest()
    before = [] if ids else list(files(progress))
    outcomes = tuple(measure(claim) for claim in chosen)
    if write:
        store(outcomes, keep=claims)
        render.write(claims)
    after = [] if ids else [pages(claims)]
    return Report((*before, *after), outcomes)


def files(progress: Progress | None = None) -> Iterator[Part]:
    """The files of the results: hashes, records, witnesses, identities between their columns."""
    try:
        problems = tuple(results.verify())
    except UserError as error:
        yield Part("files", "", (str(error),))
        return
    yield Part("files", f"{len(results.manifest())} files, sha256", problems)
    touched = {line.split(" ")[0] for line in problems}
    entries = results.records()
    faulty = [line for name, entry in entries.items() for line in records.faults(name, entry)]
    faulty += records.manifest_faults(entries)
    yield Part("records", f"{len(entries)} records, schema {results.SCHEMA}", tuple(faulty))
    yield witnesses(progress)
    sound = {name: one for name, one in entries.items() if not _is_touched(name, touched)}
    yield _identities(sound)


def _is_touched(name: str, touched: set[str]) -> bool:
    stem = f"data/{name.removesuffix('.json')}."
    return any(file.startswith(stem) for file in touched)


def witnesses(progress: Progress | None = None) -> Part:
    """Whether the code of today gives the numbers of the experiments; runs what is not known."""
    try:
        outcomes = witness.attest_all(progress)
    except UserError as error:
        return Part("witnesses", "", (str(error),))
    ran = [one for one in outcomes if one.ran]
    detail = f"{len(outcomes)} experiments, {len(ran)} run"
    if ran:
        detail += f" in {sum(one.seconds for one in ran):.0f} s"
    return Part("witnesses", detail, tuple(one.failure for one in outcomes if one.failure))


def _identities(entries: dict[str, dict[str, object]]) -> Part:
    worst, results_seen, failures = 0.0, 0, []
    for name, entry in entries.items():
        try:
            stored = results.load(
                str(entry["experiment"]), str(entry["name"]), profile=str(entry["profile"])
            )
        except (UserError, KeyError) as error:
            failures.append(f"data/{name}: {error}")
            continue
        for table, facts in stored.record["tables"].items():
            if len(stored[table]) != facts["rows"]:
                failures.append(
                    f"data/{name}: table {table} has {len(stored[table])} rows, the record says "
                    f"{facts['rows']}; {records.recompute(entry)}"
                )
        found = records.identities(stored.tables, stored.record)
        results_seen += bool(found)
        for identity, gap in found.items():
            worst = max(worst, gap)
            if not gap <= columns.TOLERANCE:
                failures.append(
                    f"data/{name}: {identity} recomputed from the stored columns is off by "
                    f"{number(gap)}; {records.recompute(entry)}"
                )
    detail = f"{results_seen} results from their columns, largest gap {number(worst)}"
    return Part("identities", detail, tuple(failures))


def pages(claims: Claims) -> Part:
    """The measured values that are kept, and the pages that are written from them."""
    try:
        known = measured.read()
        absent = [one.id for one in claims.claims if one.check is not None and one.id not in known]
        failures = [
            f"data/claims.json has no measured value of {', '.join(absent[:5])}"
            f"{f' and {len(absent) - 5} more' if len(absent) > 5 else ''}: passgrad verify --write"
            for _ in absent[:1]
        ]
        failures += [
            f"{name} is not what claims.yml and data/claims.json make: passgrad verify --write"
            for name in ([] if failures else render.outdated(claims))
        ]
    except UserError as error:
        failures = [str(error)]
    return Part("pages", ", ".join(render.pages(None)), tuple(failures))


def store(outcomes: tuple[Outcome, ...], *, keep: Claims) -> None:
    """Write the measured values of these claims, and keep those of the others that still exist."""
    try:
        known = measured.read()
    except UserError:
        known = {}  # what was changed by hand is not kept
    ids = {one.id for one in keep.claims}
    known = {name: entry for name, entry in known.items() if name in ids}
    for one in outcomes:
        if one.claim.check is not None and one.measured:
            known[one.claim.id] = known.get(one.claim.id, {}) | {"measured": one.measured}
    measured.write(known)
