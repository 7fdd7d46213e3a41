"""The API reference: how docstrings of the package become entries of the book.

Three things that autodoc leaves open. ``:param low, high:`` describes several parameters at once,
which Sphinx would read as a type and a name. pass@10 would be an address to write to. And
docstrings name an object by the module that defines it, while the reference has it under its public
name. A docstring that names an object which does not exist is a warning.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys

from sphinx.util.nodes import make_refnode

VERSION = 1
_SEVERAL = re.compile(r"^:param ([\w*]+(?:, [\w*]+)+):(.*)$")
# Packages and names whose entries are in other places.
_OTHERS = {
    "collections", "np", "numpy", "pathlib", "pd", "torch", "transformers", "trl", "typing",
    "ArrayLike", "Axes", "DataFrame", "NDArray", "PreTrainedModel", "PreTrainedTokenizerBase",
}  # fmt: skip
_LITERAL = re.compile(r"(``.*?``|`[^`]*`)")
_ERROR = re.compile(r"^:raises UserError:")


def fields(app, what, name, obj, options, lines):
    """One field a parameter, errors that link to their entry, and no addresses."""
    written = []
    example = False
    for line in lines:
        example = line.startswith(">>>") or (example and bool(line))
        if example:
            written.append(line)
            continue
        # Odd pieces are literals, roles and formulas.
        pieces = _LITERAL.split(line)
        pieces[::2] = [piece.replace("pass@", "pass\\@") for piece in pieces[::2]]
        line = "".join(pieces)
        several = _SEVERAL.match(line)
        if several:
            first, *others = several[1].split(", ")
            written += [f":param {other}: With ``{first}``." for other in others]
            line = f":param {first}:{several[2]}"
        written.append(_ERROR.sub(":raises ~passgrad.UserError:", line))
    lines[:] = written


def _exists(target):
    """Whether this is a module or object of the package, by its full name or by that in a module
    that has been imported for the reference.
    """
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "passgrad" and _has(module, target.split(".")):
            return True
    names = target.split(".")
    for count in range(len(names), 0, -1):
        with contextlib.suppress(ImportError):
            return _has(importlib.import_module(".".join(names[:count])), names[count:])
    return False


def _has(thing, names):
    for name in names:
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


def _entry(env, target):
    """The one entry of the reference with this last name, or None."""
    last = "." + target.rsplit(".", 1)[-1]
    objects = env.get_domain("py").objects
    names = [name for name in objects if name.endswith(last)]
    return (names[0], objects[names[0]]) if len(names) == 1 else None


def link(app, env, node, contnode):
    """What a name links to that is no entry under that name.

    The entry under the public name, if there is one; else nothing, where the name is that of an
    object all the same. Anything else stays a warning, and so ends a build with -W.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if target.split(".")[0] in _OTHERS:
        return contnode
    if not _exists(target):
        return None
    entry = _entry(env, target)
    if entry is None:
        return contnode
    name, thing = entry
    return make_refnode(app.builder, node["refdoc"], thing.docname, thing.node_id, contnode, name)


def setup(app):
    app.connect("autodoc-process-docstring", fields)
    app.connect("missing-reference", link)
    return {"version": str(VERSION), "parallel_read_safe": True, "parallel_write_safe": True}
