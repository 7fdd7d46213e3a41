"""The role {result}`EXPERIMENT/PROFILE/NAME:TABLE[column=value].COLUMN|FORMAT`.

A number in prose is read from the file that holds it; the file and its hash show on hover. A file,
table, row or column that is not there is a warning, and so ends a build with -W. The page is read
again when the file changes. What an address may be: :mod:`passgrad_book.build.claims.reference`.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from passgrad.errors import UserError
from passgrad_book.build.claims import reference

VERSION = 1


class Number(nodes.inline):
    """Text with the file that it comes from."""


def visit_html(translator, node):
    translator.body.append(
        translator.starttag(node, "span", "", CLASS="stored-number", title=node["origin"])
    )


def depart_html(translator, node):
    translator.body.append("</span>")


def ignore(translator, node):
    pass


class ResultRole(SphinxRole):
    """A number of a stored result, or a measured value of a claim."""

    def run(self):
        try:
            found = reference.resolve(self.text)
        except UserError as error:
            logging.getLogger(__name__).warning("%s", error, location=self.get_location())
            return [nodes.literal(self.text, self.text)], []
        self.env.note_dependency(str(found.file))
        return [Number("", found.text, origin=found.origin)], []


def setup(app):
    app.add_node(
        Number, html=(visit_html, depart_html), latex=(ignore, ignore), text=(ignore, ignore)
    )
    app.add_role("result", ResultRole())
    return {
        "version": str(VERSION),
        "env_version": VERSION,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
