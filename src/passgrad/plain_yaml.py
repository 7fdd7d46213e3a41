"""YAML as it was typed: scalars stay text, so that 010, 1:30 or no are what the reader wants.

YAML 1.1 makes 8 of ``010``, 90 of ``1:30``, False of ``no`` and text of ``1e3``. Whoever asks for a
value knows its type, and reads the text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from passgrad.errors import UserError

# Aliases may make a small file a large value.
_MOST_NODES = 100_000


class Scalar(str):
    """The text of a scalar; ``quoted`` if it stood in quotes or in a block."""

    quoted: bool

    def __new__(cls, text: str, *, quoted: bool) -> Scalar:
        made = super().__new__(cls, text)
        made.quoted = quoted
        return made

    @property
    def null(self) -> bool:
        """Whether it stands for nothing."""
        return not self.quoted and self.lower() in ("", "~", "null")


def read_text(text: str) -> Any:
    """The tree of a text of YAML: :class:`Scalar`, lists and mappings.

    :raises UserError: For a text that is no YAML.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise UserError(f"{text[:60]!r} is no list or mapping; write it as [1, 2]") from None
    return Scalar("", quoted=False) if node is None else _plain(node, Path("the value"), [0])


def load(text: str) -> Any:
    """Plain values of a text of YAML, by the rules of YAML 1.2: numbers in digits, true, false and
    null; all else is text.

    :raises yaml.YAMLError: For a text that is no YAML.
    """
    return yaml.load(text, Loader=_Core)


class _Core(yaml.SafeLoader):
    """A safe loader without the words and numbers that YAML 1.1 has beside those of 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?)", "-+0123456789."),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _Core.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The names of a YAML file with their values: :class:`Scalar`, lists and mappings of them.

    :raises UserError: For a file that cannot be read, is no YAML, holds no mapping, or names
        something twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a YAML file of names and values") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give a YAML file that you may read"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; convert it to UTF-8") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise UserError(f"{path} is not YAML (line {line}); mend it") from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path} holds no names with values; write lines such as samples: 32")
    mapping = _plain(node, path, [0])
    assert isinstance(mapping, dict)
    return mapping


def _plain(node: yaml.Node, path: Path, count: list[int], above: tuple[int, ...] = ()) -> Any:
    count[0] += 1
    if count[0] > _MOST_NODES or id(node) in above or len(above) > 50:
        raise UserError(f"{path} refers to itself or is too large; write the values out")
    above = (*above, id(node))
    if isinstance(node, yaml.ScalarNode):
        return Scalar(node.value, quoted=node.style is not None)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, path, count, above) for child in node.value]
    mapping: dict[str, Any] = {}
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
            raise UserError(f"{path}, line {line}: a name is no text; write NAME: VALUE")
        if key.value in mapping:
            raise UserError(f"{path}, line {line}: {key.value!r} stands twice; keep one")
        mapping[key.value] = _plain(value, path, count, above)
    return mapping
