"""Commands that messages tell a user to type."""

from __future__ import annotations

import shlex


def in_python(program: str) -> str:
    """A command that runs a program of Python, for a POSIX shell; readable where that can be."""
    if not {*program} & {*'"$`!\\'}:
        return f'python -c "{program}"'
    return f"python -c {shlex.quote(program)}"
