"""Options of a command under headings, in plain text."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class Headed(TyperCommand):
    """A command whose help shows each ``rich_help_panel`` as a heading, without rich."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one list a heading, in the order in which they are named first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is not None:
                default = "Arguments" if parameter.param_type_name == "argument" else "Options"
                heading = getattr(parameter, "rich_help_panel", None) or default
                sections.setdefault(heading, []).append(line)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines)
