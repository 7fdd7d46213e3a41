from passgrad.progress import Silent, Within


def test_a_piece_advances_the_stage_of_another(shown):
    shown.stage("outside", 2)
    inside = Within(shown)
    inside.stage("inside", 10)
    inside.advance(2)
    inside.note("a line")
    assert shown.stages == [["outside", 2, 2]]
    assert shown.notes == ["a line"]


def test_silence(capfd):
    silent = Silent()
    silent.stage("work", 1)
    silent.advance()
    silent.note("a line")
    assert capfd.readouterr() == ("", "")
