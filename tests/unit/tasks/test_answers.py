"""What ``math`` says of pairs that a person has judged, by kind."""

from pathlib import Path

import pytest
import yaml

from passgrad.errors import UserError
from passgrad.tasks.answers.forms import Number, read
from passgrad.tasks.answers.text import answer_text
from passgrad.tasks.base import Prompt
from passgrad.tasks.verifiers import Verifier

pytestmark = pytest.mark.usefixtures("processes")  # the judge is one

PAIRS = yaml.safe_load(Path(__file__).with_name("answer_pairs.yml").read_text(encoding="utf-8"))
CLAIMED = Path(__file__).parents[3] / "book" / "measure.md"


@pytest.fixture(scope="module")
def math():
    with Verifier("math", seconds=5) as verifier:
        yield verifier


@pytest.mark.parametrize("kind", PAIRS["supported"])
def test_a_kind_is_judged_as_a_person_would(math, kind):
    answers, completions, verdicts = zip(*PAIRS["supported"][kind], strict=True)
    rewards, incidents = math.verify_all(list(completions), list(answers))
    wrong = [
        (answer, completion)
        for answer, completion, wanted, got in zip(
            answers, completions, verdicts, rewards, strict=True
        )
        if got != wanted
    ]
    assert wrong == []
    assert incidents == []


@pytest.mark.parametrize("kind", PAIRS["not supported"])
def test_a_kind_that_is_not_supported_is_wrong_and_documented(math, kind):
    answers, completions, verdicts = zip(*PAIRS["not supported"][kind], strict=True)
    assert set(verdicts) == {1}, "only right answers may be missed"
    rewards, incidents = math.verify_all(list(completions), list(answers))
    assert rewards.tolist() == [0] * len(answers)
    assert incidents == []
    assert kind in CLAIMED.read_text(encoding="utf-8")


def test_there_are_pairs_enough_of_both_verdicts():
    rows = [row for kinds in PAIRS.values() for kind in kinds.values() for row in kind]
    assert len(rows) >= 200
    assert len({(answer, completion) for answer, completion, _ in rows}) == len(rows)
    assert 0.25 < sum(wanted for *_, wanted in rows) / len(rows) < 0.8


def test_every_reference_is_right_by_itself(math):
    answers = {row[0] for kinds in PAIRS.values() for kind in kinds.values() for row in kind}
    math.check([Prompt("", "?", answer, "", answer) for answer in answers])
    boxed = [f"so \\boxed{{{answer}}}" for answer in answers]
    assert math.verify_all(boxed, list(answers))[0].all()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("nan", "NaN, a missing value"),
        ("NaN", "NaN, a missing value"),
        ("  ", "empty"),
        ("$$", "empty"),
        ("\\frac{1}{", "no number, words or LaTeX"),
        ("3x+", "no number, words or LaTeX"),
        ("}{", "no number, words or LaTeX"),
        ("\\foo{3}", "no number, words or LaTeX"),
        ("1, \\frac{2}{", "no number, words or LaTeX"),
        ("\\boxed{3", "not closed"),
    ],
)
def test_a_reference_without_a_reading_is_named_before_anything_is_drawn(math, answer, says):
    prompts = [Prompt("", "?", "5", "", "good"), Prompt("", "?", answer, "", "row 7")]
    with pytest.raises(UserError, match=says) as caught:
        math.check(prompts)
    assert "'row 7'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_references_of_gsm8k_are_tried_too():
    with Verifier("gsm8k") as verifier:
        verifier.check([Prompt("", "?", "1,200", "", "a"), Prompt("", "?", "so #### 7", "", "b")])
        with pytest.raises(UserError, match="'c' has the answer 'seven'"):
            verifier.check([Prompt("", "?", "seven", "", "c")])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so $a$, then $b = 2$", "b = 2"),
        ("it costs $5 and then $6", "$6"),
        ("we get 3 + 4 = 7 (as above)", "3 + 4 = 7"),
        ("at \\boxed{\\{1\\}} and more 5", "\\{1\\}"),
        ("2 + 3 =", None),
        ("the sum is 2 +", None),
        ("nothing", None),
        ("<think>5", None),
    ],
)
def test_where_the_answer_stands(text, answer):
    assert answer_text(text) == answer


def test_numbers_are_read_exactly():
    assert read("1e-400").value == read("10^{-400}").value
    assert read("0.1").value * 10 == 1
    assert isinstance(read("9" * 900), Number)
    assert not isinstance(read("9" * 2000), Number)
    assert not isinstance(read("1e999999999"), Number)
