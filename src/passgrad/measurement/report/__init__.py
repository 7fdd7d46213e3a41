"""The report of a measurement: one HTML file that needs nothing but itself.

:func:`write_report` turns a :class:`ReportContent` into a page that a browser shows from disk, in a
light and a dark theme, on a telephone and on paper, without a request to any host. Texts of prompts
and answers are shown as text, whatever is in them.
"""

from passgrad.measurement.report.content import (
    CurveRow,
    LayerRow,
    PromptRow,
    ReportContent,
    StepRow,
)
from passgrad.measurement.report.render import render_report, write_report

__all__ = [
    "ReportContent",
    "CurveRow",
    "PromptRow",
    "LayerRow",
    "StepRow",
    "render_report",
    "write_report",
]
