"""The keys of ``passgrad train``: what they may be, what they make, and where they are said."""

import inspect
import re
import typing
from dataclasses import MISSING, fields

import pytest

from passgrad import UserError
from passgrad.training.settings import OBJECTIVES, Settings, held_out_of


def made(**changed):
    return Settings(**{"model": "m", "prompts": "p"} | changed)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"objective": "passk"}, r"objective is 'passk'; it is one of pass@k, pass@1, mixture"),
        ({"k": 0}, "k is 0; give a whole number of at least 1"),
        ({"k": 1}, "objective mixture with k = 1; take a larger k, or pass@1"),
        ({"n": 8}, "n is 8; draw at least 9 .* for mixture with k = 8, better 16"),
        ({"n": 1, "objective": "pass@1"}, "n is 1; draw at least 2 .* for pass@1$"),
        ({"eval_samples": 4}, "eval_samples is 4; pass@8 takes at least 8"),
        ({"share": 1.0}, "share is 1.0; it is that of pass@1 in a mixture"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; give a positive number"),
        ({"rows_at_once": 7}, "give a divisor of n . prompts_per_step, which is 128"),
        ({"targets": ["q_proj"]}, "targets are of an adapter, and rank is 0"),
        ({"keep": 0.5}, "keep is of the objective conflict-free with the aggregator constrained"),
        ({"reading": "old"}, "prompts must be"),
        ({"steps": True}, "steps is True; give a whole number"),
        ({"warmup": -1}, "warmup is -1; give a whole number of at least 0"),
    ],
)
def test_what_cannot_be_is_one_line(changed, match):
    with pytest.raises(UserError, match=match) as raised:
        made(**changed)
    assert "\n" not in str(raised.value)


def test_pass_at_1_needs_two_completions_whatever_is_measured_beside_it():
    assert made(objective="pass@1", n=2).orders == (1, 8)


def test_objectives_are_plans():
    def weights(at=0.0, **changed):
        return made(**changed).plan().weights(at)

    assert weights() == {1: 0.5, 8: 0.5}
    assert weights(share=0.25, k=4) == {1: 0.25, 4: 0.75}
    assert weights(objective="pass@k") == {8: 1.0}
    assert weights(objective="pass@1") == {1: 1.0}
    assert (weights(objective="annealed"), weights(1.0, objective="annealed")) == (
        {8: 1.0},
        {1: 1.0},
    )
    assert (
        "constrained" in made(objective="conflict-free", aggregator="constrained").plan().describe()
    )
    for objective in OBJECTIVES:
        assert made(objective=objective).plan().orders


def test_what_a_folder_holds_on_to():
    settled = made().settled()
    assert settled == made(steps=300, checkpoint_every=5).settled()
    assert settled != made(learning_rate=1e-4).settled()
    # The orders of an annealed run follow from the number of its steps.
    assert made(objective="annealed").settled() != made(objective="annealed", steps=300).settled()


def test_held_out_is_a_number_a_share_or_a_file(tmp_path):
    assert held_out_of("5", 20) == 5
    assert held_out_of("0.25", 20) == 5
    file = tmp_path / "held.jsonl"
    file.write_text("")
    assert held_out_of(str(file), 20) == file
    for text in ("1.5", "-3", "20", "0.01", "nan", "inf", "half"):
        with pytest.raises(UserError, match="held_out"):
            held_out_of(text, 20)


def options():
    from passgrad.cli.train import train

    return {
        name: parameter.default
        for name, parameter in inspect.signature(train).parameters.items()
        if name not in ("config", "example", "out")
    }


def test_every_key_is_an_option_with_the_same_default():
    assert options() == {
        one.name: None if one.default is MISSING else one.default for one in fields(Settings)
    }


def test_the_page_has_every_key_with_its_default(root):
    text = (root / "book" / "train.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`)? ?\|", text, re.MULTILINE)
    shown = {name: value for name, value in rows if name != "out"}
    defaults = {
        one.name: "" if one.default in (MISSING, None) else str(one.default)
        for one in fields(Settings)
    }
    assert shown == defaults
    assert "| `out` | |" in text
    [objective] = [line for line in text.splitlines() if line.startswith("| `objective`")]
    assert set(re.findall(r"`([^`]+)`", objective)) == {"objective", *OBJECTIVES}


def test_every_key_is_said_what_it_means():
    documented = inspect.getsource(Settings)
    for one in fields(Settings):
        assert re.search(rf'^    {one.name}: [^\n]*\n    """', documented, re.MULTILINE), one.name
    assert typing.get_type_hints(Settings)
