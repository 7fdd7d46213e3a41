"""An executed notebook as one HTML file that needs nothing beside it.

The renderer is that of the book (myst-nb), here without Sphinx: formulas become MathML, figures are
in the page, and what only the whole book can resolve (references across chapters, citations) stands
as text. HTML that is written into the text of a notebook is shown as text; the output of a cell is
what the libraries made of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Blocks of the book's extensions, and how their titles begin here.
_BLOCKS = {
    "prf:theorem": "Theorem",
    "prf:proposition": "Proposition",
    "prf:lemma": "Lemma",
    "prf:corollary": "Corollary",
    "prf:definition": "Definition",
    "prf:assumption": "Assumption",
    "prf:proof": "Proof",
    "exercise": "Exercise",
    "solution": "Solution",
}
_ROLES = ("ref", "numref", "doc", "term", "prf:ref", "cite", "cite:t", "cite:p", "test", "result")

_STYLE = """
body { max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font-family: sans-serif;
  line-height: 1.5; color: #1b1f24; background: #fff; }
pre { overflow-x: auto; padding: .5rem .75rem; background: #f5f6f8; font-size: .85rem; }
img { max-width: 100%; height: auto; }
img.only-dark { display: none; }
.output, .cell_output { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .2rem .5rem; border-bottom: 1px solid #d0d4da; text-align: left; }
figcaption, .figure-data { color: #4d5662; font-size: .85rem; }
.admonition { border-left: 3px solid #8a94a3; padding: .1rem 1rem; margin: 1rem 0; }
.admonition-title { font-weight: bold; }
details { margin: .5rem 0; }
"""


def html_of(notebook: Any, title: str) -> str:
    """The page of an executed notebook.

    Paths of the machine that are in the metadata do not enter it. Cells whose inputs or outputs the
    book hides are shown whole.
    """
    import nbformat
    from docutils.core import publish_doctree, publish_from_doctree
    from myst_nb.docutils_ import Parser

    with _book_syntax():
        document = publish_doctree(
            nbformat.writes(_plain(notebook)),
            source_path=f"{title}.ipynb",
            parser=Parser(),
            settings_overrides={
                "file_insertion_enabled": False,
                "halt_level": 5,
                "myst_enable_extensions": ["amsmath", "colon_fence", "deflist", "dollarmath"],
                "nb_execution_mode": "off",
                "nb_output_folder": "",
                "nb_output_stderr": "remove",
                "nb_render_markdown_format": "myst",
                "report_level": 5,
                "syntax_highlight": "short",
                "title": title,
            },
        )
    _check_formulas(document)
    made = publish_from_doctree(
        document,
        writer_name="html5",
        settings_overrides={
            "embed_stylesheet": True,
            "math_output": "MathML",
            "output_encoding": "unicode",
            "stylesheet_path": [],
        },
    )
    return made.replace("</head>", f"<style>{_STYLE}{_highlighting()}</style>\n</head>", 1)


def _check_formulas(document: Any) -> None:
    """A formula that cannot become MathML stands as its source."""
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml

    for node in [*document.findall(nodes.math), *document.findall(nodes.math_block)]:
        block = isinstance(node, nodes.math_block)
        try:
            tex2mathml(node.astext(), as_block=block)
        except Exception:  # the converter also fails on valid input that it does not know
            kind = nodes.literal_block if block else nodes.literal
            node.parent.replace(node, kind(node.astext(), node.astext()))


def _highlighting() -> str:
    from pygments.formatters import get_formatter_by_name

    return get_formatter_by_name("html", style="default").get_style_defs(".code")


def _plain(notebook: Any) -> Any:
    """A copy without metadata of the run, and with the HTML in its text escaped."""
    import nbformat

    copy = nbformat.from_dict(notebook)
    copy.metadata = nbformat.from_dict({"kernelspec": notebook.metadata.get("kernelspec", {})})
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = _escaped(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/markdown" in data:
                data["text/markdown"] = _escaped("".join(data["text/markdown"]))
            # The page has one form of a figure.
            data.pop("application/pdf", None)
    return copy


# A tag or a comment, not "<" in a formula: those are followed by a space, a digit or a backslash.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$)", re.DOTALL)


def _escaped(text: str) -> str:
    """Tags in Markdown as text; code and formulas are escaped by the renderer."""
    return "".join(
        part if place % 2 else _TAG.sub("&lt;", part)
        for place, part in enumerate(_CODE.split(text))
    )


@contextmanager
def _book_syntax() -> Iterator[None]:
    """Directives and roles of the book's extensions while a page is made."""
    from docutils.parsers.rst import directives, roles

    mine = {name: _block(name, title) for name, title in _BLOCKS.items()}
    blocks, texts = directives._directives, roles._roles  # type: ignore[attr-defined]
    before = dict(blocks), dict(texts)
    blocks.update(mine)
    texts.update(dict.fromkeys(_ROLES, _role))
    try:
        yield
    finally:
        for registry, old in zip((blocks, texts), before, strict=True):
            registry.clear()
            registry.update(old)


def _block(name: str, title: str) -> Any:
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives

    options = {
        "label": directives.unchanged,
        "class": directives.unchanged,
        "nonumber": directives.flag,
    }

    class Block(Directive):
        has_content = True
        optional_arguments = 1
        final_argument_whitespace = True
        option_spec = options

        def run(self) -> list[Any]:
            node = nodes.admonition(classes=["admonition", name.replace(":", "-")])
            given = self.arguments[0] if self.arguments else ""
            text = title if name == "solution" or not given else f"{title} ({given})"
            parsed, messages = self.state.inline_text(text, self.lineno)
            node += nodes.title("", "", *parsed)
            self.state.nested_parse(self.content, self.content_offset, node)
            return [node, *messages]

    return Block


def _role(name: str, rawtext: str, text: str, *_: Any, **__: Any) -> tuple[list[Any], list[Any]]:
    """The text of a reference, or its target where it has none."""
    from docutils import nodes

    shown = re.sub(r"\s*<[^<>]*>$", "", text)
    return [nodes.literal(rawtext, shown) if shown == text else nodes.inline(rawtext, shown)], []
