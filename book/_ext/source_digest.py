"""Pages of notebooks are read again when what they depend on changed, and only then.

Sphinx compares a page with its own source file. A chapter also depends on code, on packages and on
the results that it reads; :func:`passgrad_book.build.notebooks.key` hashes all of these. The hash
that a page was read with is kept in the Sphinx environment, and a page whose hash differs now is
outdated.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from passgrad_book.build import notebooks, sources

VERSION = 1


def _hash(app, docname):
    source = Path(app.env.doc2path(docname))
    if source.suffix != ".py":
        return None
    # The reader adds the provenance of the run to the page, so its own code counts as well.
    return f"{notebooks.key(source)}:{sources.digest(['passgrad_book.build.notebooks'])[:12]}"


def _keys(env):
    if not hasattr(env, "passgrad_keys"):
        env.passgrad_keys = {}
    return env.passgrad_keys


def outdated(app, env, added, changed, removed):
    keys = _keys(env)
    return [
        docname
        for docname in env.found_docs
        if docname not in added
        and docname not in removed
        and _hash(app, docname) != keys.get(docname)
    ]


def remember(app, doctree):
    """Once the page was read: its reading may have executed the notebook, and found new results."""
    docname = app.env.docname
    key = _hash(app, docname)
    if key is not None:
        _keys(app.env)[docname] = key


def purge(app, env, docname):
    _keys(env).pop(docname, None)


def publish(app, error):
    """Copy the executed notebooks of the pages beside the HTML, where their pages link to them."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_notebooks"
    target.mkdir(exist_ok=True)
    for docname in app.env.found_docs:
        source = Path(app.env.doc2path(docname))
        if source.suffix == ".py":
            executed = notebooks.executed_path(source)
            if executed.is_file():
                shutil.copyfile(executed, target / f"{source.stem}.ipynb")


def without_thebe(app, pagename, templatename, context, doctree):
    """Drop the scripts of sphinx-thebe, which jupyter-book loads in any case.

    Live cells are not offered, the script comes from another host, and its configuration is written
    twice, which is an error in the browser's console.
    """
    if "script_files" in context:
        context["script_files"] = [
            script
            for script in context["script_files"]
            if "thebe"
            not in f"{script}{getattr(script, 'attributes', {}).get('body') or ''}".lower()
        ]


def setup(app):
    # Late, so that every extension has added its scripts.
    app.connect("html-page-context", without_thebe, priority=900)
    app.connect("env-get-outdated", outdated)
    app.connect("doctree-read", remember)
    app.connect("env-purge-doc", purge)
    app.connect("build-finished", publish)
    return {"version": str(VERSION), "env_version": VERSION, "parallel_read_safe": True}
