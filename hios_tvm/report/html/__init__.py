"""The report: one HTML page about one schedule, whole in itself.

``data`` says what a report holds, ``build`` makes it of a schedule with its timelines, and
``page`` writes it. The page fetches nothing: its styles, scripts and figures are inlined, and its
content security policy forbids the network.
"""

from hios_tvm.report.html.build import ReportParts, build_report
from hios_tvm.report.html.page import render_page, write_page

__all__ = ["ReportParts", "build_report", "render_page", "write_page"]
