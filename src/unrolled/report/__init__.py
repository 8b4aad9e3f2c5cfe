"""Draws a run folder, or what a model did with one sentence, into one self-contained HTML page, without torch."""

from unrolled.report.look import write_look
from unrolled.report.page import write_report

__all__ = ["write_look", "write_report"]
