"""The command ``passgrad train``."""

import pytest

from passgrad.cli import main
from passgrad.plain_yaml import read_mapping


def said(capsys, *arguments):
    """Status, standard output and standard error of a call."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *map(str, arguments)])
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_the_example_is_that_of_the_examples(root, capsys):
    status, out, _ = said(capsys, "--example")
    assert status == 0
    assert out == (root / "examples" / "train_counting.yml").read_text(encoding="utf-8")
    from passgrad.training import Settings

    given = read_mapping(root / "examples" / "train_counting.yml")
    assert {"model", "prompts", "out", "objective", "k", "rank"} <= given.keys()
    assert given.keys() - {"out"} <= set(Settings.__dataclass_fields__)


def test_help_teaches(capsys):
    status, out, _ = said(capsys, "--help")
    text = " ".join(out.split())
    assert status == 0
    for part in (
        "three lines: model, prompts and out",
        "training.json",
        "--example",
        "passgrad logs",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("lines", "arguments", "message"),
    [
        ("model: m\nprompts: p\n", [], "out is not given; name it in the file or as --out"),
        ("stepz: 3\n", [], "there is no option 'stepz': did you mean 'steps'?"),
        ("lr: 3\n", [], "there is no option 'lr'; the options are"),
        ("steps: many\n", [], "config.yml: steps: "),
        ("steps: [1, 2]\n", [], "steps is a list; give one value"),
        ("steps: 1\nsteps: 2\n", [], "'steps' stands twice; keep one"),
        ("example: true\n", [], "there is no option 'example'"),
        ("- steps\n", [], "holds no names with values"),
        ("a: [\n", [], "is not YAML"),
        ("model: m\nprompts: p\nout: o\nk: 3\n", ["--k", "0"], "k is 0; give a whole number"),
        ("model: m\nprompts: p\nout: o\n", ["--objective", "best"], "objective is 'best'"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, capsys, lines, arguments, message):
    config = tmp_path / "config.yml"
    config.write_text(lines, encoding="utf-8")
    status, out, err = said(capsys, config, *arguments)
    assert status in (1, 2)
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_command_line_goes_before_the_file(tmp_path, capsys, monkeypatch):
    import passgrad.training

    seen = []

    def run(settings, out, progress):
        seen.append((settings, out))
        point = {"value": 0.5, "low": 0.25, "high": 0.75}
        changed = {"value": -0.125, "low": -0.25, "high": 0.0}
        points = dict.fromkeys(("start", "lowest", "end"), point) | {"change": changed}
        return {"silent_groups": 0.25, "orders": {"pass@1": points, "pass@4": points}}

    monkeypatch.setitem(vars(passgrad.training), "train", run)  # without loading TRL
    config = tmp_path / "config.yml"
    config.write_text(
        "model: m\nprompts: p\nout: a\nk: 4\nsteps: 7\ntargets: [q_proj, v_proj]\nrank: 2\n"
    )
    status, out, _ = said(capsys, config, "--steps", 9, "--out", tmp_path / "b")
    assert status == 0
    [(settings, folder)] = seen
    assert (settings.steps, settings.k, settings.rank) == (9, 4, 2)
    assert list(settings.targets) == ["q_proj", "v_proj"]
    assert folder == tmp_path / "b"
    lines = out.splitlines()
    assert lines[0].split() == ["start", "lowest", "end", "change"]
    assert lines[1].startswith("pass@1")
    assert lines[1].endswith("-0.125 [-0.250, +0.000]")
    assert lines[3] == "groups that moved nothing: 25%"
    assert lines[4] == str(tmp_path / "b" / "training.svg")


def test_a_stop_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    import passgrad.training

    def run(settings, out, progress):
        raise KeyboardInterrupt

    monkeypatch.setitem(vars(passgrad.training), "train", run)  # without loading TRL
    status, _, err = said(capsys, "--model", "m", "--prompts", "p", "--out", tmp_path)
    assert status == 130
    assert err.strip() == "passgrad: stopped; what is done is kept: call it again"
