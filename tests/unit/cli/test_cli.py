import errno
import sys
import types

import pytest

from passgrad import cli
from passgrad.errors import UserError


@pytest.fixture
def call(capsys):
    """Run the command line; gives status, standard output and standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def models(monkeypatch):
    """A stand-in for the models: one is present, one is damaged, one is not known."""
    module = types.ModuleType("passgrad.lm.models")

    def known(name):
        if name not in ("small", "broken"):
            raise UserError(f"no model {name!r}; known models: broken, small")

    def check(name):
        known(name)
        return ["model.safetensors has another hash"] if name == "broken" else []

    module.MODELS = {"small": object(), "broken": object()}
    module.fetch = lambda name, progress=True: known(name)
    module.check = check
    module.is_fetched = lambda name: name == "small"
    monkeypatch.setitem(sys.modules, "passgrad.lm.models", module)
    import passgrad.lm

    monkeypatch.setattr(passgrad.lm, "models", module, raising=False)


def test_version(call):
    import passgrad

    assert call("--version") == (0, f"passgrad {passgrad.__version__}\n", "")


def test_help_teaches(call):
    status, out, _ = call("--help")
    assert status == 0
    for word in ("models", "measure", "run", "book", "doctor", "make book"):
        assert word in " ".join(out.split())
    status, out, _ = call("run", "--help")
    assert status == 0
    for word in ("Example:", "--profile", "NAME=VALUE", "smoke", "failed.ipynb"):
        assert word in out
    status, out, _ = call("measure", "--help")
    assert status == 0
    for word in (
        "Example:",
        "--rollouts",
        "--resume",
        "last box",
        "gym:NAME",
        "report.html",
        "messages",
    ):
        assert word in " ".join(out.split())
    # Each option stands under the heading of its group.
    headings = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == [
        "Options:", "Drawing completions:", "Completions drawn elsewhere:", "Judging them:",
        "Estimating:", "The step:", "Running:",
    ]  # fmt: skip
    judging = out.split("Judging them:")[1].split("Estimating:")[0]
    assert "--verifier-seconds" in judging
    assert "--samples" not in judging


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["frobnicate"], 2, "passgrad: No such command 'frobnicate'; see passgrad --help"),
        (["models", "x"], 2, "passgrad: No such command 'x'; see passgrad models --help"),
        (["run"], 2, "passgrad: Missing argument"),
        (["measure", "--out", "m"], 2, "passgrad: Missing option '--model'"),
        (["measure", "--model", "x/y.gz", "--out", "m", "--ks", "1,x"], 1, "passgrad: --ks '1,x'"),
        (["run", "toy", "--speed", "9"], 2, "passgrad: No such option"),
        (["run", "99"], 1, "passgrad: no notebook '99'; known notebooks: notebooks/pass_at_k.py"),
        (["run", "toy", "--profile", "huge"], 1, "passgrad: no profile 'huge'; known profiles:"),
        (["run", "toy", "-p", "kk=3"], 1, "passgrad: unknown parameter 'kk' of toy.py;"),
        (["run", "toy", "-p", "k"], 1, "passgrad: -p 'k' is not NAME=VALUE; known"),
        (["run", "toy", "-p", "k=x"], 1, "passgrad: the parameter k is int (default 10), got"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(call, arguments, status, message):
    code, out, err = call(*arguments)
    assert code == status
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_no_arguments_shows_the_help(call):
    status, out, err = call()
    assert status == 2
    assert out.startswith("Usage: passgrad")
    assert err == ""


def test_parameters_are_listed(call):
    status, out, _ = call("run", "toy", "--parameters", "-p", "k=7")
    assert status == 0
    assert "\nk = 7  # int: " in out


def test_models(call, models):
    status, out, _ = call("models", "list")
    assert status == 0
    assert out.splitlines()[0].split() == ["small", "in", "the", "cache"]
    assert out.splitlines()[1].split() == ["broken", "not", "fetched"]
    assert call("models", "fetch", "small") == (0, "small: present and intact\n", "")
    assert call("models", "check", "small")[0] == 0
    status, out, err = call("models", "check", "broken")
    assert status == 1
    assert "[fail] model.safetensors has another hash" in out
    assert err == "passgrad: broken is not in order; run passgrad models fetch broken\n"
    status, _, err = call("models", "fetch", "nothing")
    assert (status, err) == (1, "passgrad: no model 'nothing'; known models: broken, small\n")


def test_doctor_exits_with_one_on_a_failure(call, monkeypatch):
    from passgrad_book.build import doctor

    good = doctor.Check("python", True, "3.11")
    bad = doctor.Check("model", False, "not in the cache", "fetch it")
    monkeypatch.setattr(doctor, "checks", lambda: [good])
    status, out, _ = call("doctor")
    assert status == 0
    assert out.startswith("[ok]   python")
    monkeypatch.setattr(doctor, "checks", lambda: [good, bad])
    status, out, _ = call("doctor")
    assert status == 1
    assert "[fail] model            not in the cache: fetch it" in out


def test_a_fault_of_the_package_is_not_hidden(monkeypatch):
    from passgrad_book.build import doctor

    def fail():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(doctor, "checks", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["doctor"])


@pytest.mark.parametrize("out", ["file/inside", "file"])
@pytest.mark.parametrize(
    "command",
    [
        ["run", "toy", "--profile", "smoke", "--no-html", "--out"],
        ["sweep", "examples/sweep_toy.yml", "--out"],
        ["plan"],
    ],
)
def test_a_folder_that_cannot_be_is_one_line(call, tmp_path, root, monkeypatch, command, out):
    monkeypatch.chdir(root)
    (tmp_path / "file").write_text("not a folder")
    status, _, err = call(*command, str(tmp_path / out))
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith(f"passgrad: {tmp_path / 'file'}")
    assert "Traceback" not in err


def test_errors_of_the_system_are_one_line(call, monkeypatch):
    from passgrad_book.build import doctor

    def refuse(error):
        def checks():
            raise error

        monkeypatch.setattr(doctor, "checks", checks)
        return call("doctor")

    full = OSError(errno.ENOSPC, "No space left on device", "/some/file")
    assert refuse(full) == (
        1, "", "passgrad: /some/file: No space left on device; free some space on that disk\n",
    )  # fmt: skip
    _, _, err = refuse(PermissionError(errno.EACCES, "Permission denied", "/some/file"))
    assert err == (
        "passgrad: /some/file: Permission denied; name another path, or give yourself access to "
        "it\n"
    )
    assert refuse(TimeoutError("too late"))[2] == "passgrad: too late (TimeoutError)\n"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["doctor"], "passgrad: stopped\n"),
        (["measure", "--model", "m", "--out", "o", "--prompts", "arithmetic"], "with --resume\n"),
    ],
)
def test_an_interrupt_says_how_to_go_on(call, monkeypatch, command, says):
    from passgrad.measurement import run
    from passgrad_book.build import doctor

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "checks", interrupted)
    monkeypatch.setattr(run, "measure", interrupted)
    status, _, err = call(*command)
    assert status == 130
    assert err.endswith(says)
