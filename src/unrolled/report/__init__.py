"""Draws a run folder into one self-contained HTML page, without torch."""

from unrolled.report.page import write_report

__all__ = ["write_report"]
