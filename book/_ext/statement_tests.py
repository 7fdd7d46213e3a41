"""The role {test}`test_name`: the file of tests/theory that checks a statement, shown by its path.

A name without a file is a warning, and so ends a build with -W. Which statements have a test, and
which test names a statement that does not exist, is checked by tests/book/test_statements.py.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from passgrad_book.build import paths

VERSION = 1


class TestRole(SphinxRole):
    """A literal with the path of the test file."""

    def run(self):
        path = f"tests/theory/{self.text}.py"
        if not (paths.root() / path).is_file():
            logging.getLogger(__name__).warning("no file %s", path, location=self.get_location())
        return [nodes.literal(path, path, classes=["statement-test"])], []


def setup(app):
    app.add_role("test", TestRole())
    return {"version": str(VERSION), "parallel_read_safe": True, "parallel_write_safe": True}
