import pandas as pd
import pytest

from passgrad.errors import UserError
from passgrad_book.build import results
from passgrad_book.build.claims import measured
from passgrad_book.build.claims.reference import resolve

FRAME = pd.DataFrame(
    {"k": [1.0, 10.0, 10.0], "group": ["all", "all", "hard"], "cosine": [1.0, -0.0728, 0.5]}
)


@pytest.fixture
def stored(checkout):
    key = results.Key("one", 1, "seed-0", {"n": 12, "ks": [1, 2]})
    results.obtain(key, lambda: {"conflict": FRAME}, recompute=True)
    measured.write({"E1": {"measured": {"threshold": 7.97, "times": 12263.02}}})
    return checkout


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("one/cpu/seed-0:conflict[k=1].cosine|.1f", "1.0"),
        ("one/cpu/seed-0:conflict[k=10, group=all].cosine|.3f", "−0.073"),
        ("one/cpu/seed-0:conflict[k=10,group=hard].cosine|.0%", "50%"),
        ("one/cpu/seed-0:parameters.n", "12"),
        ("one/cpu/seed-0:version", "1"),
        ("claims:E1.threshold|.1f", "8.0"),
        ("claims:E1.times|,.0f", "12,263"),
        ("claims:E1.times|.1e", "1.2 × 10⁴"),
        ("one/cpu/seed-0:conflict[k=10, group=all].cosine|.0e", "−7 × 10⁻²"),
    ],
)
def test_an_address_gives_its_number(stored, address, text):
    found = resolve(address)
    assert found.text == text
    assert found.file.is_file()
    assert found.sha256[:12] in found.origin


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("seed-0", "is no address of a result"),
        ("one/seed-0:seed", "'one/seed-0' names no result"),
        ("one/cpu/seed-9:seed", "no stored result one/seed-9 of the cpu profile"),
        ("one/cpu/seed-0:curve[k=1].cosine", "no table 'curve' in this result; it has: conflict"),
        ("one/cpu/seed-0:conflict[k=1].sine", "no column 'sine'; it has: k, group, cosine"),
        ("one/cpu/seed-0:conflict[j=1].cosine", "no column 'j'; it has: k, group, cosine"),
        ("one/cpu/seed-0:conflict[k=10].cosine", "chooses 2 rows; an address needs one"),
        ("one/cpu/seed-0:conflict[k=7].cosine", "chooses 0 rows; an address needs one"),
        ("one/cpu/seed-0:conflict[k=x].cosine", "chooses 0 rows"),
        ("one/cpu/seed-0:conflict[k=1]", "is no cell of one/cpu/seed-0"),
        ("one/cpu/seed-0:parameters.m", "has no 'm'; it has: ks, n"),
        ("one/cpu/seed-0:parameters", "is not one value"),
        ("one/cpu/seed-0:parameters.n|.2q", "cannot be shown as '.2q'"),
        ("one/cpu/seed-0:name|.2f", "'seed-0' cannot be shown as"),
        ("claims:E9.threshold", "no measured value of the claim 'E9'"),
        ("claims:E1.size", "the claim E1 has no 'size'; it has: "),
    ],
)
def test_what_is_not_there_is_one_line(stored, address, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as error:
        resolve(address)
    assert "\n" not in str(error.value)


def test_a_table_that_was_edited_is_refused(stored):
    path = stored / "data/results/one/cpu/seed-0.conflict.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"seed-0.conflict.parquet was changed by hand"):
        resolve("one/cpu/seed-0:conflict[k=1].cosine")


@pytest.fixture
def three(stored):
    for seed, value in ((1, 0.2), (2, -0.4)):
        key = results.Key("one", 1, f"seed-{seed}", {"n": seed})
        results.obtain(
            key, lambda v=value: {"conflict": FRAME.assign(cosine=[1.0, v, 0.5])}, recompute=True
        )


@pytest.mark.parametrize(
    ("over", "text"),
    [
        ("median", "−0.07"),
        ("min", "−0.40"),
        ("max", "0.20"),
        ("count", "3.00"),
        ("negative", "2.00"),
    ],
)
def test_a_summary_is_over_all_results_of_these_names(three, over, text):
    assert resolve(f"one/cpu/seed-*:conflict[k=10,group=all].cosine|{over}|.2f").text == text


def test_a_summary_may_be_of_a_difference(three):
    cells = "conflict[k=10,group=all].cosine - conflict[k=1].cosine"
    assert resolve(f"one/cpu/seed-*:{cells}|max|.2f").text == "−0.80"


def test_a_summary_over_nothing_is_refused(three):
    with pytest.raises(UserError, match="no stored result is named"):
        resolve("one/cpu/tree-*:conflict[k=1].cosine|max|.2f")
