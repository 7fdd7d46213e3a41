import itertools

import pytest

from passgrad_book.build.claims import load, render


@pytest.fixture
def claims(entry, write):
    other = entry | {"id": "E1", "command": "pytest tests/x.py", "statement": "||a|| costs $1"}
    gpu = entry | {
        "id": "C2", "verdict": "needs a GPU", "check": None, "expected": [], "minutes": 600,
        "quoted": [{"quantity": "q", "value": -181, "source": "Figure 6b"}], "command": "x gpu",
    }  # fmt: skip
    return load(write(entry, gpu, other))


KNOWN = {
    "C1": {
        "measured": {"cosine": -0.774558},
        "rerun": {"seconds": 12.3, "device": "EPYC, 2 cores", "time": "2026-11-24T10:00:00Z"},
    }
}


def test_the_page_has_every_claim_with_its_numbers(claims):
    page = render.book_page(claims, KNOWN)
    assert page.startswith("% Generated from claims.yml")
    assert "(claim-c1)=\n### C1: reproduced" in page
    assert "| `cosine` | -0.77 ± 0.005 | -0.7746 | printed |" in page
    assert "Last run: 12 s on EPYC, 2 cores, 2026-11-24." in page
    assert "| q | -181 | Figure 6b |" in page
    assert "| needs a GPU | 1 |" in page
    assert "2 minutes in all" in page  # the GPU's 10 hours are not among them


def test_a_value_that_was_not_measured_is_a_dash(claims):
    assert "| `cosine` | -0.77 ± 0.005 | – | printed |" in render.book_page(claims, {})


def test_the_appendix_escapes_what_markdown_reads(claims):
    text = render.artifact(claims, KNOWN)
    assert "\\|\\|a\\|\\| costs \\$1" in text
    assert "| `passgrad run toy` | C1 | 1 min | 2 CPU cores | 12 s on EPYC" in text
    assert "C2 need a GPU and were not run here" in text
    assert "\n\n\n" not in text


def test_runs_of_ids_are_shortened():
    chosen = load().select(["C1", "C2", "C3", "C16", "C17", "E1"])
    assert render._ids(list(chosen)) == "C1 to C3, C16, C17, E1"


def test_a_measured_value_that_contradicts_the_verdict_shows(claims):
    page = render.book_page(claims, {"C1": {"measured": {"cosine": 0.3}}})
    assert "### C1: not reproduced" in page
    assert "| not reproduced | 1 | measured, and otherwise |" in page
    assert "| C1 | One is one. | Section 1 | not reproduced |" in render.artifact(
        claims, {"C1": {"measured": {"cosine": 0.3}}}
    )


def test_a_blank_line_ends_every_table():
    """Else Markdown takes the text below for one more row."""
    for text in render.pages(load()).values():
        for line, below in itertools.pairwise(text.splitlines()):
            assert not line.startswith("|") or below == "" or below.startswith("|"), below
