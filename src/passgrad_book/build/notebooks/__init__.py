"""Notebooks: from the ``.py`` source through papermill to an executed ``.ipynb``, into a folder of
results, and into the book.

The source of a notebook is a Python file in the percent format with one cell tagged ``parameters``
(:mod:`~passgrad_book.build.notebooks.source`, :mod:`~passgrad_book.build.notebooks.parameters`). It
is executed in a kernel of its own (:mod:`~passgrad_book.build.notebooks.running`). ``passgrad run``
keeps a run as one folder: the executed notebook, a page, a record and the tables
(:mod:`~passgrad_book.build.notebooks.folder`, :mod:`~passgrad_book.build.notebooks.page`,
:mod:`~passgrad_book.build.notebooks.tables`).

The book reads its chapters through :func:`executed`, which looks an executed notebook up by the
hash of everything that it depends on, and runs it when there is none
(:mod:`~passgrad_book.build.notebooks.book`).
"""

from passgrad_book.build.notebooks.book import (
    KEPT,
    book_profile,
    ensure_executed,
    executed,
    executed_path,
    key,
    provenance_markdown,
)
from passgrad_book.build.notebooks.folder import Run, default_folder, run_digest, run_to_folder
from passgrad_book.build.notebooks.parameters import (
    Parameter,
    Profile,
    parameters_of,
    parse_value,
    profile_values,
    resolve,
)
from passgrad_book.build.notebooks.running import NotebookFailed, run_notebook
from passgrad_book.build.notebooks.source import find, sources, split

__all__ = [
    "find",
    "sources",
    "split",
    "Parameter",
    "Profile",
    "parameters_of",
    "parse_value",
    "profile_values",
    "resolve",
    "NotebookFailed",
    "run_notebook",
    "Run",
    "default_folder",
    "run_digest",
    "run_to_folder",
    "KEPT",
    "book_profile",
    "ensure_executed",
    "executed",
    "executed_path",
    "key",
    "provenance_markdown",
]
