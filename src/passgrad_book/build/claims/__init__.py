"""The claims of the paper and of this project, as data that a machine can check.

``claims.yml`` says what is claimed, where it comes from, which number is expected and why; a
function in :mod:`passgrad_book.experiments.checks` measures it. ``passgrad verify`` compares the
two from what ships, ``passgrad reproduce`` after running the claim's command again; the book's page
and ``ARTIFACT.md`` are written from the same file.
"""

from passgrad_book.build.claims.schema import Claim, Claims, Expectation, load

__all__ = ["Claim", "Claims", "Expectation", "load"]
