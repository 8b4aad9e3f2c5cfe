"""The command line: one file a verb; torch is imported only inside a verb."""

from unrolled.cli.app import main

__all__ = ["main"]
