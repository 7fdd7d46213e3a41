"""``--config FILE.yml``: options of a command from a file; the command line goes before it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from passgrad.errors import UserError
from passgrad.plain_yaml import Scalar, read_mapping


def read_config(context: Any, path: Path | None) -> Path | None:
    """The callback of ``--config``: what the file says stands in for what is not given.

    Values are read as on the command line, by the type of their option.

    :raises UserError: For a name that is no option of the command, and a value of another type.
    """
    if path is None:
        return None
    options = {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.name not in ("config", "help", "example")
    }
    given: dict[str, Any] = {}
    for name, tree in read_mapping(path).items():
        option = options.get(name.replace("-", "_").lstrip("_"))
        if option is None:
            raise UserError(f"{path}: {_unknown(name, options)}")
        if option.name in given:
            raise UserError(f"{path}: {name!r} stands twice; keep one")
        value = _value(tree, option, f"{path}: {name}")
        if value is not None:
            given[option.name] = value
    for name, value in given.items():
        option = options[name]
        if option.callback is None:
            try:
                option.process_value(context, value)
            except UserError:
                raise
            except Exception as error:  # of click, or of typer's own copy of it
                message = getattr(error, "message", "") or str(error)
                raise UserError(f"{path}: {name}: {message.rstrip('.')}") from None
    context.default_map = {**(context.default_map or {}), **given}
    return path


def _unknown(name: str, options: dict[str, Any]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_"), list(options), n=1)
    if close:
        return f"there is no option {name!r}: did you mean {close[0]!r}?"
    return f"there is no option {name!r}; the options are {', '.join(options)}"


def _value(tree: Any, option: Any, where: str) -> Any:
    """What the command line would be given: text, or a list of texts for what may be repeated."""
    if isinstance(tree, Scalar):
        if tree.null:
            return None
        return [str(tree)] if option.multiple else str(tree)
    if isinstance(tree, dict):
        if not option.multiple:
            raise UserError(f"{where} holds names and values; give one value")
        return [f"{key}={_text(part, where)}" for key, part in tree.items()]
    parts = [_text(part, where) for part in tree]
    if option.multiple:
        return parts
    if option.name == "ks":
        return ",".join(parts)
    raise UserError(f"{where} is a list; give one value")


def _text(tree: Any, where: str) -> str:
    if isinstance(tree, dict):
        import json

        return json.dumps({key: _json(part) for key, part in tree.items()})
    if not isinstance(tree, Scalar):
        raise UserError(f"{where} holds a list in a list; give single values")
    return str(tree)


def _json(tree: Any) -> Any:
    """A value of an object, such as those of chat_template_kwargs."""
    if isinstance(tree, dict):
        return {key: _json(part) for key, part in tree.items()}
    if isinstance(tree, list):
        return [_json(part) for part in tree]
    if not tree.quoted and tree.lower() in ("true", "false"):
        return tree.lower() == "true"
    return None if tree.null else str(tree)
