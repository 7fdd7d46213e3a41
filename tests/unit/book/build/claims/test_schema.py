import copy

import pytest

from passgrad.errors import UserError
from passgrad_book.build.claims import load


def changed(entry, path, value):
    made = copy.deepcopy(entry)
    here = made
    for step in path[:-1]:
        here = here[step]
    if value is None:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return made


def test_a_sound_claim_is_read(entry, write):
    (one,) = load(write(entry)).claims
    assert one.id == "C1"
    assert one.expected[0].text() == "-0.77 ± 0.005"
    assert one.words == ["passgrad", "run", "toy"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("verdict",), "proven", r"C1\.verdict: input should be 'reproduced'.*got 'proven'"),
        (("sauce",), "Section 2", r"C1\.sauce: extra inputs are not permitted"),
        (("minutes",), "long", r"C1\.minutes: .*valid number.*got 'long'"),
        (("minutes",), 0, r"C1\.minutes: .*greater than 0"),
        (("minutes",), None, r"C1\.minutes: field required"),
        (("id",), "X1", r"X1\.id: .*pattern"),
        (("expected", 0, "why"), None, r"C1\.expected\[cosine\]\.why: field required"),
        (("expected", 0, "tolerance"), None, r"C1\.expected\[cosine\]: value and tolerance go"),
        (("expected", 0, "tolerance"), -1, r"C1\.expected\[cosine\]\.tolerance: .*greater than"),
        (("expected", 0, "value"), float("nan"), r"C1\.expected\[cosine\]\.value: .*finite"),
        (("expected", 0, "tolerence"), 1, r"C1\.expected\[cosine\]\.tolerence: extra"),
        (("check",), None, r'C1: check: the verdict "reproduced" needs one'),
        (("expected",), [], r'C1: expected: the verdict "reproduced" needs a number'),
        (("verdict",), "needs a GPU", r'C1: verdict: "needs a GPU" stands without check'),
        (("derived", "chapter"), None, r"C1\.derived\.chapter: field required"),
    ],
)
def test_a_fault_is_one_line_with_claim_and_field(entry, write, path, value, message):
    with pytest.raises(UserError, match=message) as error:
        load(write(changed(entry, path, value)))
    assert "\n" not in str(error.value)


def test_the_second_claim_is_named_by_its_own_id(entry, write):
    other = changed(entry, ("id",), "E7")
    with pytest.raises(UserError, match=r"claims.yml: E7\.hardware"):
        load(write(entry, changed(other, ("hardware",), None)))


def test_an_id_is_there_once(entry, write):
    with pytest.raises(UserError, match="C1 is there twice"):
        load(write(entry, entry))


def test_a_quantity_is_there_once(entry, write):
    twice = changed(entry, ("expected",), entry["expected"] * 2)
    with pytest.raises(UserError, match="expected: cosine is there twice"):
        load(write(twice))


def test_a_table_of_others_is_rectangular(entry, write):
    table = {"title": "t", "source": "s", "columns": ["a", "b"]}
    rows = [{"name": "r", "values": [1.0]}]
    with pytest.raises(UserError, match="r has not one value a column"):
        load(write(entry, context=[{**table, "rows": rows}]))


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", r"is not YAML \(line \d+\)"), ("- 1", "must map paper"), (None, "is missing")],
)
def test_a_file_that_is_no_claims_file(tmp_path, text, message):
    path = tmp_path / "claims.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        load(path)


def test_an_unknown_claim_is_named_with_the_known_ones(entry, write):
    claims = load(write(entry, changed(entry, ("id",), "E2")))
    assert [one.id for one in claims.select(["E2", "E2"])] == ["E2"]
    assert claims.select(None) == claims.claims
    with pytest.raises(UserError, match="no claim 'C9' in claims.yml; known are C1 to E2"):
        claims.select(["C9"])


@pytest.mark.parametrize(
    ("bounds", "measured", "holds"),
    [
        ({"value": 1.0, "tolerance": 0.1}, 1.1, True),
        ({"value": 1.0, "tolerance": 0.1}, 1.11, False),
        ({"value": 5.0, "tolerance": 0.0}, 5.0, True),
        ({"value": 5.0, "tolerance": 0.0}, 6.0, False),
        ({"at_least": 0.0}, 0.0, True),
        ({"at_least": 0.0}, -1e-300, False),
        ({"at_least": 0.0, "at_most": 1.0}, 1.5, False),
        ({"at_most": 1.0}, float("nan"), False),
        ({"at_least": 1.0}, float("inf"), False),
    ],
)
def test_what_holds(entry, write, bounds, measured, holds):
    made = changed(entry, ("expected",), [{"quantity": "q", "why": "w", **bounds}])
    (one,) = load(write(made)).claims
    assert one.expected[0].holds(measured) is holds
