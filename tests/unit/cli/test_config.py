"""``passgrad measure --config FILE.yml``: options from a file, read as on the command line."""

import sys

import pytest

from passgrad import cli


@pytest.fixture
def asked(monkeypatch, tmp_path, capsys):
    """What the command asks for with a file of this text and these arguments; or its error."""
    calls = []
    monkeypatch.setattr(sys.modules["passgrad.cli.measure"], "_run", lambda *a: calls.append(a))

    def run(text, *arguments):
        calls.clear()
        path = tmp_path / "c.yml"
        path.write_text(text)
        with pytest.raises(SystemExit):
            cli.main(["measure", "--config", str(path), *arguments])
        error = capsys.readouterr().err
        assert error.count("\n") <= 1
        return calls[0] if calls else error

    return run


BASE = "model: m\nout: o\n"


def test_options_are_read_by_their_types(asked):
    model, prompts, out, options = asked(
        BASE + "prompts: p.jsonl\nsamples: 016\nks: [1, 2, 4]\nparts: no\nverifier: math\n"
        "step-size: length=1e-5\nlevel: 9e-1\nmax_new_tokens: ~\nseed: 3\n"
    )
    assert (model, prompts, str(out)) == ("m", "p.jsonl", "o")
    assert options.drawing.samples == 16
    assert options.drawing.seed == 3
    assert options.drawing.limit == 512
    assert options.estimating.ks == (1, 2, 4)
    assert options.estimating.parts is False
    assert options.estimating.level == 0.9
    assert options.judging.verifier == "math"
    assert options.step.size.unit == "length"


def test_the_command_line_goes_before_the_file(asked):
    options = asked(BASE + "samples: 16\nparts: false\n", "--samples", "8", "--parts")[3]
    assert options.drawing.samples == 8
    assert options.estimating.parts is True


def test_options_that_are_given_several_times(asked):
    options = asked(
        BASE + "rollouts: [a.jsonl, b.jsonl]\nreward: {acc: 1, format: 0.5}\n"
        "settings: {temperature: 1, chat_template_kwargs: {enable_thinking: false}}\n"
    )[3]
    assert options.drawing.rollouts == ["a.jsonl", "b.jsonl"]
    assert options.logged.weights({}) == {"acc": 1.0, "format": 0.5}
    assert options.logged.stated().law == {"temperature": 1}
    assert options.logged.stated().template == {"enable_thinking": False}
    assert asked(BASE + "rollouts: a.jsonl\nreward: acc\n")[3].logged.weights({}) == {"acc": 1.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("samplse: 3\n", "there is no option 'samplse': did you mean 'samples'?"),
        ("zzz: 3\n", "there is no option 'zzz'; the options are model, out"),
        ("config: x.yml\n", "there is no option 'config'"),
        ("samples: 0x10\n", "samples: .*integer"), ("samples: 1:30\n", "samples: .*integer"),
        ("samples: [1, 2]\n", "samples is a list; give one value"),
        ("samples: {a: 1}\n", "samples holds names and values"),
        ("samples: 1\nsamples: 2\n", "line 4: 'samples' stands twice"),
        ("max-new-tokens: 3\nmax_new_tokens: 4\n", "'max_new_tokens' stands twice"),
        ("parts: maybe\n", "parts: .*boolean"), ("a: [\n", "c.yml is not YAML"),
    ],
)  # fmt: skip
def test_faults_name_the_file(asked, text, says):
    import re

    error = asked(BASE + text)
    assert isinstance(error, str)
    assert re.search(says, error), error
    assert "c.yml" in error
