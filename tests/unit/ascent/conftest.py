import pytest


class Told:
    """A :class:`passgrad.progress.Progress` that keeps what it is told."""

    def __init__(self):
        self.stages, self.done = [], 0

    def stage(self, name, total):
        self.stages.append((name, total))

    def advance(self, amount=1):
        self.done += amount

    def note(self, text):
        raise AssertionError(text)


@pytest.fixture
def told():
    return Told()
