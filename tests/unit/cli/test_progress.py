import io

import pytest

from passgrad.cli import progress
from passgrad.cli.progress import Bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_with_the_time_left(capsys, clock):
    with Bars() as bars:
        bars.stage("passes", 10)
        for _ in range(10):
            clock[0] += 20
            bars.advance()
        bars.note("over")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[0:00] passes"
    assert lines[1] == "[0:40] passes: 20%, 2:40 left"
    assert lines[-1] == "[3:20] over"
    assert len(lines) == 6  # none at the end, where nothing is left


def test_hours_are_shown(capsys, clock):
    with Bars() as bars:
        clock[0] = 3723.4
        bars.note("over")
    assert capsys.readouterr().err == "[1:02:03] over\n"


def test_a_terminal_gets_bars(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Bars() as bars:
        bars.stage("passes", 2)
        bars.advance(2)
        bars.note("a [note] with <marks>")
    shown = screen.getvalue()
    assert "passes" in shown
    assert "100%" in shown
    assert "a [note] with <marks>" in shown


def test_bars_end_with_an_error(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")

    def fail():
        with Bars() as bars:
            bars.stage("passes", 2)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert "\x1b[?25h" in screen.getvalue()  # the cursor is back
