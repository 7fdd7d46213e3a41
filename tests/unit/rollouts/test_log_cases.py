"""Random logs are read as they are meant, or refused in one line that names the row."""

import re

import numpy as np
import pytest

from passgrad.errors import UserError
from passgrad.rollouts.foreign_logs import Log, Prompts, Row
from passgrad.rollouts.foreign_rollouts import rollouts_of
from passgrad.rollouts.logged import Logged, LogSettings
from passgrad.tasks.base import Prompt, Task, exact_match
from passgrad.tasks.verifiers import Verifier

FIELDS = (
    "prompt", "completion", "completion_ids", "reward", "finish_reason", "group", "logprob",
    "temperature", "top_p", "top_k", "seed", "max_new_tokens",
)  # fmt: skip


class Reader:
    """Reads cases; what depends on the tokenizer and the task alone is made once."""

    def __init__(self, tokenizer, log_cases):
        self.tokenizer, self.cases = tokenizer, log_cases
        prompts = [
            Prompt("", text, log_cases.ANSWERS[text], "", f"p{number}")
            for number, text in enumerate(log_cases.PROMPTS)
        ]
        self.task = Task("sums", tuple(prompts), exact_match, None, 512)
        self.lookups = {None: Prompts(None, tokenizer), "batch": Prompts(self.task, tokenizer)}
        self.known = {}
        log_cases.SIGNS.update({i: tokenizer.decode([i]) for i in range(len(tokenizer))})

    def ids_of(self, text):
        if text not in self.known:
            self.known[text] = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return list(self.known[text])

    def read(self, case):
        rows = [
            Row(f"log, row {n}", self.cases.cells_of(case, n - 1))
            for n in range(1, len(case.rows) + 1)
        ]
        columns = dict.fromkeys(name for row in rows for name in row.cells)
        layout = "generate" if case.layout == "sglang" else case.layout
        lookup = self.lookups["batch" if layout == "batch" else None]
        log = Log(
            "log", rows, columns, self.tokenizer, lookup,
            Logged(layout=layout), None, (self.cases.END,), None, LogSettings(),
        )  # fmt: skip
        return rollouts_of(log, self.task if layout == "batch" else None, Verifier("exact"), None)


def check(reader, case):
    """Whether the case was read; fails where it was read otherwise than meant."""
    if case.layout == "batch":
        for number, row in enumerate(case.rows):
            place = number % 2 if len(case.rows) % 2 == 0 else 0
            row["id"], row["prompt_text"] = f"p{place}", reader.cases.PROMPTS[place]
    wanted = reader.cases.meaning(case, reader.ids_of)
    told = f"{case.layout}: {case.rows!r}"
    try:
        table = reader.read(case).table
    except UserError as error:
        text = str(error)
        assert "\n" not in text, told
        assert text.startswith("log"), told
        assert re.match(r"log, row \d+: ", text) or len(case.rows) > 1 or "log: " in text, told
        nothing_right = wanted is not None and not any(row["reward"] for row in wanted)
        if case.changes == 0 and not (case.layout == "lm-eval" and nothing_right):
            raise AssertionError(f"{text}\n{told}") from error
        return False
    assert wanted is not None, told
    read = [{name: row[name] for name in FIELDS} for row in table.to_pylist()]
    assert read == [{name: row[name] for name in FIELDS} for row in wanted], told
    return True


def run(reader, seed, count):
    rng = np.random.default_rng(seed)
    cases = [reader.cases.draw(rng, reader.ids_of) for _ in range(count)]
    return sum(check(reader, case) for case in cases)


@pytest.fixture(scope="module")
def reader(make_tokenizer, log_cases):
    return Reader(make_tokenizer("0123456789+= abcdefghijklmnopqrstuvwxyz"), log_cases)


def test_logs_are_read_as_meant_or_refused(reader):
    assert 300 < run(reader, 0, 1000) < 600  # both happen


def test_many_logs_are_read_as_meant_or_refused(reader, replications):
    run(reader, 1, replications(100_000, 1000))


def test_a_reader_that_reads_wrong_is_noticed(reader, monkeypatch):
    from passgrad.rollouts.readers import states

    monkeypatch.setitem(states._STATES, "abort", "stop")
    with pytest.raises(AssertionError, match="abort"):
        run(reader, 0, 1500)
