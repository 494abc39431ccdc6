"""Standard output that takes every text."""

from __future__ import annotations

import io
import sys


def print_any_text() -> None:
    """Makes standard output take every text: what its encoding lacks is shown as \\u20ac.

    The encoding of a Latin-1 or C locale would end the command in the middle of its output.
    """
    stream = sys.stdout
    # Other error handlers are ones that the user asked for.
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")
